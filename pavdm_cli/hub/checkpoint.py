"""Loads published weights into a model on its device: files are mapped one at a time, and never twice in memory."""

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
from pavdm_cli.hub.finite import check_finite, min_max
from pavdm_cli.hub.json_file import PULL_HINT, read_json
from pavdm_cli.hub.safetensors_file import open_weights
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.runtime.printable import command_line
from pavdm_cli.runtime.untrusted import InvalidError, check_regular, mapping_of, open_nonblocking, string

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # as files name them
FILES_BY_NAME = mapping_of(string(255), 100_000)  # of an index
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """Where a part's tensors are, by their names in the model."""

    folder: Path  # for messages
    files: Mapping[str, Path]
    names: Mapping[str, str] = field(default_factory=dict)  # in the file, if different

    def name_in_file(self, name: str) -> str:
        """The name of a tensor in its file."""
        return self.names.get(name, name)

    def read(self, function: Callable[[Any, str], T]) -> dict[str, T]:
        """Call a function with the open file and the name in it of every tensor, file by file. Raises: ModelError."""
        results: dict[str, T] = {}
        for path in sorted(set(self.files.values())):
            with open_checkpoint(path) as file:
                names = [name for name, at in self.files.items() if at == path]
                results |= {name: function(file, self.name_in_file(name)) for name in names}
        return results

    def shapes(self) -> Shapes:
        """Sizes of the tensors, from the files' headers alone. Raises: ModelError."""
        return self.read(lambda file, name: tuple(file.get_slice(name).get_shape()))


def load_into(
    build: Callable[[], M],
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    unused_prefixes: tuple[str, ...] = (),
) -> M:
    """The model with the weights in a folder, frozen. Tensors with a prefix in `unused_prefixes` are not read.

    What is not in the state dict is created by the model itself. Raises: ModelError.
    """
    return load_stored(
        build,
        StoredTensors(folder, locate_tensors(folder, unused_prefixes)),
        device,
        lambda name: dtype,
        unused_prefixes,
    )


def load_stored(
    build: Callable[[], M],
    tensors: StoredTensors,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    unused_prefixes: tuple[str, ...] = (),
) -> M:
    """The model with these weights, frozen; weights of the model with a prefix in `unused_prefixes` may be missing.

    Every tensor is copied from its mapped file to the device in its precision, and assigned: the host holds the pages
    of one file at a time. Raises: ModelError.
    """
    with meta_init():
        model = build()
    check_tensors(
        {name: value for name, value in model.state_dict().items() if not name.startswith(unused_prefixes)}, tensors
    )
    names = {tensors.name_in_file(name): name for name in tensors.files}
    weights = tensors.read(lambda file, name: copy_to(file.get_tensor(name), device, dtype_of(names[name])))
    check_finite({name: min_max(weight) for name, weight in weights.items()}, tensors.files.__getitem__)
    model.load_state_dict(weights, strict=False, assign=True)  # compared above
    return model.eval().requires_grad_(False)


def locate_tensors(
    folder: Path, unused_prefixes: tuple[str, ...] = (), belongs: Callable[[str], bool] = lambda name: True
) -> dict[str, Path]:
    """The file of every tensor, from the files' headers; names with a prefix in `unused_prefixes` are left out.

    belongs: whether a file of the folder is of this part, by its name. Raises: ModelError if a name is in two files, or
    an index does not match the files.
    """
    files = [path for path in sorted(folder.glob("*.safetensors")) if belongs(path.name)]
    index_files = [path for path in sorted(folder.glob("*.safetensors.index.json")) if belongs(path.name)]
    if index_files:
        return _locate_indexed(index_files[0], files, unused_prefixes)
    if not files and any(path for kind in PICKLED for path in folder.glob(kind)):
        raise ModelError(
            f"{folder} holds pickled weights, which can run code",
            f"`{command_line(('pavdm', 'models', 'convert'), str(folder))}`",
        )
    if not files:
        raise ModelError(f"no weights at {folder}", PULL_HINT)
    return _find_tensors(files, unused_prefixes)


def _locate_indexed(index: Path, files: list[Path], unused_prefixes: tuple[str, ...]) -> dict[str, Path]:
    """Like `locate_tensors`, for files with an index. Raises: ModelError."""
    files_by_name = _read_index(index)
    if strays := [path.name for path in files if path not in files_by_name.values()]:
        raise ModelError(f"{index} does not list {_first(strays)} in its folder", "remove the files of other models")
    indexed_files = {name: path for name, path in files_by_name.items() if not name.startswith(unused_prefixes)}
    actual = _find_tensors(sorted({*indexed_files.values()}), unused_prefixes)
    wrong = [f"{name} is not in {path.name}" for name, path in indexed_files.items() if actual.get(name) != path]
    wrong += [f"{name} in {actual[name].name} is not in the index" for name in actual.keys() - indexed_files.keys()]
    if wrong:
        raise ModelError(f"{index} does not match its files: {_first(sorted(wrong))}", "download them again")
    return actual


def _read_index(index: Path) -> dict[str, Path]:
    """The file of every tensor according to an index. Raises: ModelError."""
    file_names: Any = read_json(index).get("weight_map")
    if not FILES_BY_NAME.fits(file_names) or any(Path(file).name != file for file in file_names.values()):
        raise ModelError(f"{index} names no files in its folder", PULL_HINT)
    return {name: index.parent / file for name, file in file_names.items()}


def _find_tensors(files: list[Path], unused_prefixes: tuple[str, ...]) -> dict[str, Path]:
    """The file of every tensor according to the files. Raises: ModelError."""
    files_by_name: dict[str, Path] = {}
    for path in files:
        with open_checkpoint(path) as file:
            all_names: list[str] = file.keys()
        names = [name for name in all_names if not name.startswith(unused_prefixes)]
        if twice := sorted(name for name in names if name in files_by_name):
            both = f"{files_by_name[twice[0]].name} and {path.name}"
            raise ModelError(f"{both} in {path.parent} both hold {_first(twice)}", "keep the file that belongs there")
        files_by_name |= dict.fromkeys(names, path)
    return files_by_name


def _first(names: list[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def tensor_shapes(files_by_name: Mapping[str, Path]) -> Shapes:
    """Shapes of the tensors in files, from the headers alone. Raises: ModelError."""
    return StoredTensors(Path(), files_by_name).shapes()


def open_checkpoint(path: Path) -> Any:
    """A safetensors file, mapped. Raises: ModelError."""
    try:
        return open_weights(path)
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}", PULL_HINT) from error
    except (SafetensorError, InvalidError, OSError) as error:
        why = f": {error}" if isinstance(error, InvalidError) else ""
        raise ModelError(
            f"{path} is not a safetensors file{why}", "it may be truncated: `pavdm models verify`"
        ) from error


def digest(folder: Path) -> str:
    """16 hexadecimal digits of names, sizes and samples of all safetensors files in a folder; not a full read."""
    return digest_files(sorted(folder.rglob("*.safetensors")), folder)


def digest_files(paths: Iterable[Path], folder: Path | None = None) -> str:
    """The same of some files; folder: relative to which their names count, else only the last part."""
    total = hashlib.sha256()
    for path in paths:
        name = path.relative_to(folder).as_posix() if folder else path.name
        total.update(f"{name} {path.stat().st_size}".encode())
        total.update(samples(path))
    return total.hexdigest()[:16]


def samples(path: Path) -> bytes:
    """64 evenly spaced samples of 4 kB: files of the same size with the same samples are considered equal.

    Raises: ModelError for anything but a regular file.
    """
    size = path.stat().st_size
    with open(path, "rb", opener=open_nonblocking) as file:
        try:
            check_regular(os.fstat(file.fileno()))
        except InvalidError as error:
            raise ModelError(f"{path} cannot be read: {error}", PULL_HINT) from error
        return b"".join(_read(file, index * max(0, size - 4096) // 63) for index in range(64))


def _read(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(4096)


def copy_to(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy, so that the pages of the mapped file can be freed; contiguous, for the fastest matmuls."""
    dtype = dtype if value.is_floating_point() else value.dtype
    return value.to(device, dtype, copy=True, memory_format=torch.contiguous_format)


def check_tensors(model: dict[str, Tensor], tensors: StoredTensors) -> None:
    """Reject missing and unknown tensors, wrong shapes and integers, by their names in the file. Raises: ModelError."""
    expected_sizes, sizes = {name: tuple(value.shape) for name, value in model.items()}, tensors.shapes()
    kinds = tensors.read(lambda file, name: str(file.get_slice(name).get_dtype()))
    wrong = [f"{tensors.name_in_file(name)} is missing" for name in expected_sizes.keys() - sizes.keys()]
    wrong += [f"{tensors.name_in_file(name)} is unknown" for name in sizes.keys() - expected_sizes.keys()]
    for name in expected_sizes.keys() & sizes.keys():
        if sizes[name] != expected_sizes[name]:
            wrong.append(f"{tensors.name_in_file(name)} is {list(sizes[name])} instead of {list(expected_sizes[name])}")
        if model[name].is_floating_point() and kinds[name] not in FLOATS:
            wrong.append(f"{tensors.name_in_file(name)} is {kinds[name]}, not a float")
    if wrong:
        raise ModelError(f"{tensors.folder} does not fit: {_first(sorted(wrong))}", "use the weights of this model")
