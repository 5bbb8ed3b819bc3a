"""Read an untrusted still image with Pillow: upright, in sRGB, without transparency."""

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
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.io.info import TOO_LARGE
from pavdm_cli.video.io.input import Limits, check_input
from pavdm_cli.video.io.orientation import Orientation

if TYPE_CHECKING:
    from PIL import Image

HINT = "give a PNG, JPEG, WebP, AVIF or HEIC file; to continue a video, use `pavdm extend`"
MAX_FILE_BYTES = 2**29
MAX_PIXELS = 2**26  # cameras have up to 61 million
MAX_ASPECT_RATIO = 32
MAX_PROFILE_BYTES = 2**22  # of an ICC profile
ORIENTATION_TAG = 0x0112  # in EXIF: 1 to 8, an index into the following
EXIF_ORIENTATIONS = (
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
    """A decoded image."""

    path: Path
    frame: Frame  # (H, W, 3), upright
    digest: str  # of the file's bytes
    notes: tuple[str, ...]  # what reading changed, one line each


def read_image(path: str | os.PathLike[str], limits: Limits | None = None) -> StillImage:
    """Decode an image; its size is checked first. Raises: InputError."""
    file = check_input(path, HINT)
    data = _read_bytes(file)
    image_format = _detect_format(data, file)
    with warnings.catch_warnings():  # Pillow warns about files; what matters is reported as one line here
        warnings.simplefilter("ignore")
        image = _open(data, image_format, file)
        _check_size(image.size, limits or Limits(pixels=MAX_PIXELS), file)
        frame, notes = _decode(image, file)
    return StillImage(file, frame, hashlib.sha256(data).hexdigest()[:16], tuple(notes))


def _read_bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{file} is too large for an image", HINT)
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", HINT) from None


def _detect_format(data: bytes, file: Path) -> str:
    """Pillow's name of the format, by the first bytes."""
    brands = {data[at : at + 4] for at in (8, *range(16, min(64, int.from_bytes(data[:4])), 4))}
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return "PNG" if data[:1] == b"\x89" else "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] != b"ftyp" or not brands & {b"avif", b"avis", *HEIC_BRANDS}:
        raise InputError(f"{file} is not an image that can be read", HINT)
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if find_spec("pillow_heif") is None:
        raise InputError(f"{file} is a HEIC image, which needs pillow-heif", install_command("heic"))
    return "HEIF"


def _open(data: bytes, image_format: str, file: Path) -> Image.Image:
    """Read the header only."""
    from PIL import Image, UnidentifiedImageError

    if image_format == "HEIF":
        importlib.import_module("pillow_heif").register_heif_opener()
    try:
        return Image.open(io.BytesIO(data), formats=[image_format])
    except Image.DecompressionBombError:
        raise InputError(f"{file} has more pixels than fit in memory", TOO_LARGE) from None
    except UnidentifiedImageError:
        raise InputError(f"{file} is damaged or truncated: it starts like {image_format} but is not", HINT) from None
    except Exception:  # header parsers raise many kinds of errors on garbage
        raise InputError(f"{file} is damaged or truncated: its header cannot be read", HINT) from None


def _check_size(size: tuple[int, int], limits: Limits, file: Path) -> None:
    width, height = size
    if width * height > limits.pixels:
        raise InputError(f"{file} has {width}x{height} pixels, more than fit in memory", TOO_LARGE)
    if max(size) > MAX_ASPECT_RATIO * min(size):
        hint = f"crop it: the longer side may be {MAX_ASPECT_RATIO} times the shorter"
        raise InputError(f"{file} has {width}x{height} pixels, too narrow for a video", hint)


def _decode(image: Image.Image, file: Path) -> tuple[Frame, list[str]]:
    """Upright RGB on white, and notes on what was changed."""
    try:
        image.load()
        orientation, count = _read_exif_orientation(image), _count_frames(image)
        image, color_notes = _to_srgb(_to_8_bits(image))
        image, alpha_notes = _blend_on_white(image)
    except Exception:  # decoders do too, and an attacker chooses the decoder
        hint = "copy or download it again"
        raise InputError(f"{file} is damaged or truncated: it cannot be decoded", hint) from None
    notes = [*color_notes, *alpha_notes]
    notes += [orientation.note()] if orientation.note() else []
    notes += [f"the first of its {count} frames"] if count > 1 else []
    return orientation.apply(np.asarray(image)), notes


def _read_exif_orientation(image: Image.Image) -> Orientation:
    """Broken EXIF counts as none: it does not make an image invalid."""
    with suppress(Exception):
        number = image.getexif().get(ORIENTATION_TAG, 1)
        if isinstance(number, int) and 1 <= number <= len(EXIF_ORIENTATIONS):
            return EXIF_ORIENTATIONS[number - 1]
    return EXIF_ORIENTATIONS[0]


def _count_frames(image: Image.Image) -> int:
    """Frames of an animation; further images in a camera's JPEG are thumbnails and depth maps."""
    return 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Gray, RGB, RGBA or CMYK with 8 bits per channel."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip; it reads 16-bit colors as 8 bits itself
        gray = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((gray + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Convert from the image's ICC profile, if it has another one than sRGB."""
    from PIL import ImageCms

    data = image.info.get("icc_profile") or b""
    if not 0 < len(data) <= MAX_PROFILE_BYTES:
        return image, []
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image, []
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        srgb_image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, ["its color profile is invalid: sRGB assumed"]
    assert srgb_image is not None
    return srgb_image, ["converted from its color profile to sRGB"]


def _blend_on_white(image: Image.Image) -> tuple[Image.Image, list[str]]:
    from PIL import Image

    if image.mode != "RGBA" or np.asarray(image.getchannel("A")).min() == 255:
        return image.convert("RGB"), []
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB"), ["transparent areas blended on white"]
