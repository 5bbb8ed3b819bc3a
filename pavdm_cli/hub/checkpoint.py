"""Published weights on disk to a model on its device: one file at a time, mapped, never twice in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.finite import check_finite, extremes
from pavdm_cli.hub.safetensors_file import open_weights
from pavdm_cli.runtime import untrusted
from pavdm_cli.runtime.printable import command_line
from pavdm_cli.runtime.untrusted import InvalidError, check_regular, mapping_of, open_nonblocking, string

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]
FETCH = "`pavdm models pull` fetches them"
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # as files name them
FILES_BY_NAME = mapping_of(string(255), 100_000)  # of an index
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """Where a part's tensors are, by their names in the model."""

    folder: Path  # for messages
    files: Mapping[str, Path]
    names: Mapping[str, str] = field(default_factory=dict)  # in the file, where another one

    def name_in_file(self, name: str) -> str:
        """What the file calls a tensor."""
        return self.names.get(name, name)

    def read(self, ask: Callable[[Any, str], T]) -> dict[str, T]:
        """What `ask` says of every tensor, given its open file and its name there, file by file. Raises: ModelError."""
        answers: dict[str, T] = {}
        for path in sorted(set(self.files.values())):
            with opened(path) as file:
                own = [name for name, at in self.files.items() if at == path]
                answers |= {name: ask(file, self.name_in_file(name)) for name in own}
        return answers

    def shapes(self) -> Shapes:
        """Sizes of the tensors, from the files' headers alone. Raises: ModelError."""
        return self.read(lambda file, name: tuple(file.get_slice(name).get_shape()))


def load_into(
    build: Callable[[], M], folder: Path, device: torch.device, dtype: torch.dtype, unused: tuple[str, ...] = ()
) -> M:
    """The model with the folder's weights, frozen. Tensors whose names begin like one of `unused` are not read.

    What a model keeps outside its state dict, it makes itself. Raises: ModelError.
    """
    return load_stored(build, StoredTensors(folder, tensors(folder, unused)), device, lambda name: dtype, unused)


def load_stored(
    build: Callable[[], M],
    stored: StoredTensors,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    unused: tuple[str, ...] = (),
) -> M:
    """The model with these weights, frozen; those of the model that begin like one of `unused` need not be there.

    Every tensor goes from its mapped file to the device in its precision, and becomes the model's own: the host holds
    one file's pages at a time. Raises: ModelError.
    """
    with torch.device("meta"):
        model = build()
    _compare({name: value for name, value in model.state_dict().items() if not name.startswith(unused)}, stored)
    names = {stored.name_in_file(name): name for name in stored.files}
    weights = stored.read(lambda file, name: _moved(file.get_tensor(name), device, dtype_of(names[name])))
    check_finite({name: extremes(weight) for name, weight in weights.items()}, stored.files.__getitem__)
    model.load_state_dict(weights, strict=False, assign=True)  # compared above
    return model.eval().requires_grad_(False)


def tensors(
    folder: Path, unused: tuple[str, ...] = (), belongs: Callable[[str], bool] = lambda name: True
) -> dict[str, Path]:
    """Which file holds which tensor, by the files' own headers; names that begin like one of `unused` are left out.

    belongs: by its name, whether a file of the folder is of this part. Raises: ModelError where a name is in two files,
    or an index places tensors where they are not.
    """
    files = [path for path in sorted(folder.glob("*.safetensors")) if belongs(path.name)]
    indexed = [path for path in sorted(folder.glob("*.safetensors.index.json")) if belongs(path.name)]
    if indexed:
        return _indexed(indexed[0], files, unused)
    if not files and any(path for kind in PICKLED for path in folder.glob(kind)):
        raise ModelError(
            f"{folder} holds pickled weights, which can run code",
            f"`{command_line(('pavdm', 'models', 'convert'), str(folder))}`",
        )
    if not files:
        raise ModelError(f"no weights at {folder}", FETCH)
    return _held(files, unused)


def _indexed(index: Path, files: list[Path], unused: tuple[str, ...]) -> dict[str, Path]:
    """As `tensors`, where an index names the files. Raises: ModelError."""
    placed = _placed(index)
    if strays := [path.name for path in files if path not in placed.values()]:
        raise ModelError(f"{index} does not name {_first(strays)} beside it", "move away what does not belong there")
    named = {name: path for name, path in placed.items() if not name.startswith(unused)}
    found = _held(sorted({*named.values()}), unused)
    wrong = [f"{name} is not in {path.name}" for name, path in named.items() if found.get(name) != path]
    wrong += [f"{name} in {found[name].name} is not in the index" for name in found.keys() - named.keys()]
    if wrong:
        raise ModelError(f"{index} does not fit its files: {_first(sorted(wrong))}", "are these of several downloads?")
    return found


def _placed(index: Path) -> dict[str, Path]:
    """Where an index says that tensors are. Raises: ModelError."""
    named: Any = read_json(index).get("weight_map")
    if not FILES_BY_NAME.fits(named) or any(Path(file).name != file for file in named.values()):
        raise ModelError(f"{index} names no files beside it", FETCH)
    return {name: index.parent / file for name, file in named.items()}


def _held(files: list[Path], unused: tuple[str, ...]) -> dict[str, Path]:
    """Where tensors are. Raises: ModelError."""
    found: dict[str, Path] = {}
    for path in files:
        with opened(path) as file:
            all_names: list[str] = file.keys()
        names = [name for name in all_names if not name.startswith(unused)]
        if twice := sorted(name for name in names if name in found):
            both = f"{found[twice[0]].name} and {path.name}"
            raise ModelError(f"{both} in {path.parent} both hold {_first(twice)}", "keep the file that belongs there")
        found |= dict.fromkeys(names, path)
    return found


def _first(named: list[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")


def shapes(where: Mapping[str, Path]) -> Shapes:
    """Sizes of the tensors, from the files' headers alone. Raises: ModelError."""
    return StoredTensors(Path(), where).shapes()


def opened(path: Path) -> Any:
    """A safetensors file, mapped. Raises: ModelError."""
    try:
        return open_weights(path)
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}", FETCH) from error
    except (SafetensorError, InvalidError, OSError) as error:
        why = f": {error}" if isinstance(error, InvalidError) else ""
        raise ModelError(
            f"{path} is not a safetensors file{why}", "it may be cut short: `pavdm models verify`"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file. Raises: ModelError."""
    try:
        value = untrusted.read_json(path)
    except FileNotFoundError as error:
        raise ModelError(f"no {path.name} in {path.parent}", FETCH) from error
    except (OSError, InvalidError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "it may be cut short: `pavdm models verify`") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} describes no model", "it may be another file of that name")
    return value


def digest(folder: Path) -> str:
    """16 hexadecimal digits of names, sizes and 64 samples of 4 kB of every weights file below; no full read."""
    return digest_files(sorted(folder.rglob("*.safetensors")), folder)


def digest_files(paths: Iterable[Path], folder: Path | None = None) -> str:
    """The same of these files; folder: below which their names count, else the last part does."""
    total = hashlib.sha256()
    for path in paths:
        name = path.relative_to(folder).as_posix() if folder else path.name
        total.update(f"{name} {path.stat().st_size}".encode())
        total.update(samples(path))
    return total.hexdigest()[:16]


def samples(path: Path) -> bytes:
    """64 samples of 4 kB from all over a file: two files of one size with the same are taken for the same.

    Raises: ModelError for what is no regular file.
    """
    size = path.stat().st_size
    with open(path, "rb", opener=open_nonblocking) as file:
        try:
            check_regular(os.fstat(file.fileno()))
        except InvalidError as error:
            raise ModelError(f"{path} cannot be read: {error}", FETCH) from error
        return b"".join(_read(file, place * max(0, size - 4096) // 63) for place in range(64))


def _read(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(4096)


def _moved(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Out of the mapped file, so that its pages can go; contiguous, as products read weights fastest."""
    wanted = dtype if value.is_floating_point() else value.dtype
    return value.to(device, wanted, copy=True, memory_format=torch.contiguous_format)


def _compare(model: dict[str, Tensor], stored: StoredTensors) -> None:
    """Refuse missing and unknown tensors, other sizes and integers, by their names in the file. Raises: ModelError."""
    expected, sizes = {name: tuple(value.shape) for name, value in model.items()}, stored.shapes()
    kinds = stored.read(lambda file, name: str(file.get_slice(name).get_dtype()))
    wrong = [f"{stored.name_in_file(name)} is missing" for name in expected.keys() - sizes.keys()]
    wrong += [f"{stored.name_in_file(name)} is not its own" for name in sizes.keys() - expected.keys()]
    for name in expected.keys() & sizes.keys():
        if sizes[name] != expected[name]:
            wrong.append(f"{stored.name_in_file(name)} is {list(sizes[name])} instead of {list(expected[name])}")
        if model[name].is_floating_point() and kinds[name] not in FLOATS:
            wrong.append(f"{stored.name_in_file(name)} is {kinds[name]}, no float")
    if wrong:
        raise ModelError(f"{stored.folder} does not fit: {_first(sorted(wrong))}", "are these another model's?")
