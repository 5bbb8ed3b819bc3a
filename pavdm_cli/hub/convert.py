"""Converts pickled weights to safetensors: dense tensors only; no code in a pickle runs, and memory is bounded."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.checkpoint import PICKLED
from pavdm_cli.runtime.untrusted import InvalidError, is_regular, summarize

UNWRAPPED = ("state_dict", "model", "module", "ema")  # keys under which training scripts store the tensors
NESTED = 8  # maximum nesting of such keys
MAX_PICKLE_BYTES = 16 << 20  # bytes of the list of tensors; 10,000 of them take 1 MB
MAX_TENSORS = 100_000
MAX_NAME_LENGTH = 1000
SMALL = 1 << 20  # bytes
BUILDERS = (b"cbuiltins\n", b"c__builtin__\n", b"c_codecs\n")  # of bytes as many as a pickle asks for
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
ODD = "it was not loaded; weights must be dense tensors of real numbers, each with its own storage"


def convert(folder: Path) -> list[Path]:
    """Write each pickled file of a folder as safetensors next to it. Raises: ModelError, OutputError."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder", "give the folder that has the pickled weights")
    pickled_files = sorted(path for kind in PICKLED for path in folder.glob(kind))
    if not pickled_files:
        raise ModelError(f"no pickled weights in {folder}", f"looked for {', '.join(PICKLED)}")
    return [_convert(path) for path in pickled_files]


def _convert(path: Path) -> Path:
    target = path.with_suffix(".safetensors")
    if target.exists():
        raise ModelError(f"{target} already exists", "delete it to convert again")
    try:
        tensors = _read(path)
    except InvalidError as error:
        raise ModelError(f"{path} cannot be converted: {error}", ODD) from error
    with atomic_write(target) as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    return target


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors, mapped; those that share memory are copied. Raises: InvalidError, ModelError."""
    if not is_regular(path):
        raise InvalidError("it is not a regular file")
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InvalidError:
        raise
    except Exception as error:  # pickle, zip and tensors each fail in their own ways
        raise ModelError(f"{path} contains more than tensors, or is truncated", "it was not loaded") from error
    tensors = _unwrap(content)
    _check_bytes(tensors, path.stat().st_size)
    return _separate(tensors)


def _check_archive(path: Path) -> None:
    """Reject a compressed archive, and one whose pickle is too long or may run code. Raises: InvalidError."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise InvalidError("it is compressed, which torch.save never does")
        pickles = [member for member in members if member.filename.endswith(".pkl")]
        if any(member.file_size > MAX_PICKLE_BYTES for member in pickles):
            raise InvalidError(f"its list of tensors has more than {MAX_PICKLE_BYTES} bytes")
        if any(name in archive.read(member) for member in pickles for name in BUILDERS):
            raise InvalidError("it holds more than tensors")


def _unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors by name, without the dicts that training scripts wrap them in. Raises: InvalidError."""
    for _ in range(NESTED):
        inside = next((name for name in UNWRAPPED if isinstance(content, dict) and name in content), None)
        if inside is None or isinstance(content[inside], Tensor):
            break
        content = content[inside]
    if not isinstance(content, dict) or not content or len(content) > MAX_TENSORS:
        raise InvalidError("it has no list of tensors")
    for name, value in content.items():
        if not _is_name(name):
            raise InvalidError(f"a tensor is named {summarize(name)}")
        if type(value) not in (Tensor, nn.Parameter):
            raise InvalidError(f"{summarize(name)} is not a tensor")
        if problem := _unsupported_reason(value):
            raise InvalidError(f"{summarize(name)} is {problem}")
    return content


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or name == "__metadata__":
        return False
    return name.isprintable()  # so neither surrogates nor control characters


def _unsupported_reason(value: Tensor) -> str:
    """Why a tensor cannot be weights, or empty."""
    if value.device.type != "cpu":
        return f"on the device {value.device.type}, without values"
    if value.layout != torch.strided:
        return "sparse"
    if value.is_quantized:
        return "quantized"
    if value.dtype not in DTYPES:
        return f"of {value.dtype}"
    if value.numel() * value.itemsize > value.untyped_storage().nbytes():
        return "expanded: larger than its storage"
    return ""


def _check_bytes(tensors: dict[str, Tensor], size: int) -> None:
    """Reject tensors of more than twice the file's size in all; tied weights count twice. Raises: InvalidError."""
    total = sum(value.numel() * value.itemsize for value in tensors.values())
    if total > 2 * size + SMALL:
        raise InvalidError(f"its tensors would take {total / 1e9:.1f} GB, the file has {size / 1e9:.1f} GB")


def _separate(loaded_tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors that share memory with an earlier one."""
    addresses: set[int] = set()
    tensors = {}
    for name, value in loaded_tensors.items():
        value = value.detach()
        is_shared = value.untyped_storage().data_ptr() in addresses
        addresses.add(value.untyped_storage().data_ptr())
        tensors[name] = value.clone(memory_format=torch.contiguous_format) if is_shared else value.contiguous()
    return tensors
