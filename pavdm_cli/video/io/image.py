"""A still picture out of a file that may be hostile: read by Pillow, upright, as RGB."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pavdm_cli.errors import InputError
from pavdm_cli.runtime.install_hints import install_command
from pavdm_cli.video.io.info import TOO_LARGE
from pavdm_cli.video.io.input import Limits, check_input
from pavdm_cli.video.io.orientation import Orientation
from pavdm_cli.video.write.encode import Frame

if TYPE_CHECKING:
    from PIL import Image

HINT = "give a PNG, JPEG, WebP, AVIF or HEIC file; `pavdm extend` goes on from a video"
LARGEST = 2**29  # bytes of a file
PIXELS = 2**26  # of a picture: cameras have up to 61 million
MAX_ASPECT_RATIO = 32  # times as long as wide
LONGEST_PROFILE = 2**22  # bytes of a colour profile
ORIENTATION = 0x0112  # a tag of EXIF: which of these eight a picture is turned by, from 1 on
TURNS = (
    Orientation(),
    Orientation(False, True, False),
    Orientation(False, True, True),
    Orientation(False, False, True),
    Orientation(True, False, False),
    Orientation(True, True, False),
    Orientation(True, True, True),
    Orientation(True, False, True),
)
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclass(frozen=True, slots=True)
class StillImage:
    """A picture that was read."""

    path: Path
    frame: Frame  # (H, W, 3), upright
    digest: str  # of the file's bytes
    notes: tuple[str, ...]  # what reading it changed, one line each


def read_image(path: str | os.PathLike[str], limits: Limits | None = None) -> StillImage:
    """Read a picture; nothing is decoded before its size is known to be bearable. Raises: InputError."""
    file = check_input(path, HINT)
    data = _bytes(file)
    form = _format(data, file)
    with warnings.catch_warnings():  # Pillow's are about files, and end up in one line here or do not matter
        warnings.simplefilter("ignore")
        image = _open(data, form, file)
        _check_size(image.size, limits or Limits(pixels=PIXELS), file)
        frame, notes = _decode(image, file)
    return StillImage(file, frame, hashlib.sha256(data).hexdigest()[:16], tuple(notes))


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST:
            raise InputError(f"{file} is larger than a picture is", HINT)
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", HINT) from None


def _format(data: bytes, file: Path) -> str:
    """Pillow's name of the file's format, by its first bytes."""
    brands = {data[at : at + 4] for at in (8, *range(16, min(64, int.from_bytes(data[:4])), 4))}
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return "PNG" if data[:1] == b"\x89" else "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] != b"ftyp" or not brands & {b"avif", b"avis", *HEIC_BRANDS}:
        raise InputError(f"{file} is not a picture that can be read", HINT)
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if find_spec("pillow_heif") is None:
        raise InputError(f"{file} is a HEIC picture, which needs pillow-heif", install_command("heic"))
    return "HEIF"


def _open(data: bytes, form: str, file: Path) -> Image.Image:
    """The picture, of which only the header has been read."""
    from PIL import Image, UnidentifiedImageError

    if form == "HEIF":
        importlib.import_module("pillow_heif").register_heif_opener()
    try:
        return Image.open(io.BytesIO(data), formats=[form])
    except Image.DecompressionBombError:
        raise InputError(f"{file} has more pixels than can be held", TOO_LARGE) from None
    except UnidentifiedImageError:
        raise InputError(f"{file} is damaged or cut short: it is not the {form} that it begins as", HINT) from None
    except Exception:  # the readers of headers raise errors of many kinds at nonsense
        raise InputError(f"{file} is damaged or cut short: its header cannot be read", HINT) from None


def _check_size(size: tuple[int, int], limits: Limits, file: Path) -> None:
    width, height = size
    if width * height > limits.pixels:
        raise InputError(f"{file} has {width}x{height} pixels, more than can be held", TOO_LARGE)
    if max(size) > MAX_ASPECT_RATIO * min(size):
        hint = f"crop it: the longer side may be {MAX_ASPECT_RATIO} times the shorter"
        raise InputError(f"{file} has {width}x{height} pixels, too narrow for a video", hint)


def _decode(image: Image.Image, file: Path) -> tuple[Frame, list[str]]:
    """Upright RGB on white, and what was changed for it."""
    try:
        image.load()
        turn, count = TURNS[_turn(image) - 1], _count(image)
        shown, notes = _in_srgb(_plain(image))
        shown, more = _on_white(shown)
    except Exception:  # so do the decoders; an attacker chooses which
        raise InputError(f"{file} is damaged or cut short: it cannot be decoded", "copy or download it again") from None
    notes += more
    notes += [turn.note()] if turn.note() else []
    notes += [f"the first of its {count} pictures"] if count > 1 else []
    return turn.upright(np.asarray(shown)), notes


def _turn(image: Image.Image) -> int:
    """The orientation that EXIF names, 1 to 8; broken EXIF is no reason to refuse a picture."""
    with suppress(Exception):
        number = image.getexif().get(ORIENTATION, 1)
        if isinstance(number, int) and 1 <= number <= len(TURNS):
            return number
    return 1


def _count(image: Image.Image) -> int:
    """How many pictures an animation has; other pictures in a camera's JPEG are thumbnails and depth maps."""
    return 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)


def _plain(image: Image.Image) -> Image.Image:
    """Grey, RGB, RGBA or CMYK of 8 bits."""
    from PIL import Image

    if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would clip; colours of 16 bits it reads as 8
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _in_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The picture in sRGB, by its own colour profile where it has another one."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile") or b""
    if not 0 < len(profile) <= LONGEST_PROFILE:
        return image, []
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return image, []
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        shown = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, ["its colour profile cannot be used: taken for sRGB"]
    assert shown is not None
    return shown, ["colours converted from its own profile to sRGB"]


def _on_white(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode != "RGBA" or np.asarray(image.getchannel("A")).min() == 255:
        return image.convert("RGB"), []
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB"), ["what is transparent is shown white"]
