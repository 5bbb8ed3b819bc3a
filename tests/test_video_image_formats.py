"""Images of every format, mode and profile that Pillow reads, and those that are rejected."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.clips import corners

from pavdm_cli.errors import InputError
from pavdm_cli.video import read_image
from pavdm_cli.video.io.image import MAX_ASPECT_RATIO

pillow_heif = pytest.importorskip("pillow_heif")
pillow_heif.register_heif_opener()

SAVED = {"png": {}, "jpg": {"quality": 97}, "webp": {"quality": 97}, "avif": {"quality": 95}, "heic": {"quality": 95}}


def saved(folder: Path, suffix: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / f"a.{suffix}", **SAVED[suffix], **options)
    return folder / f"a.{suffix}"


def error(path: Path) -> InputError:
    with pytest.raises(InputError) as excinfo:
        read_image(path)
    assert "\n" not in excinfo.value.message
    assert excinfo.value.hint
    return excinfo.value


def near(frame: np.ndarray, expected: np.ndarray) -> bool:
    return frame.shape == expected.shape and np.abs(frame.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("suffix", SAVED)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    still = read_image(saved(tmp_path, suffix, Image.fromarray(corners())))
    assert near(still.frame, corners())
    assert still.notes == ()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif"])  # HEIC turns itself, whatever EXIF says
def test_orientation_is_applied_once_in_every_format(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(corners())))
    assert near(read_image(saved(tmp_path, suffix, stored, exif=exif)).frame, corners())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read(tmp_path: Path, mode: str) -> None:
    gray = np.repeat(np.asarray(Image.fromarray(corners()).convert("L"))[..., None], 3, -1)
    expected = {"1": gray // 128 * 255, "L": gray, "LA": gray, "I;16": gray}.get(mode, corners())
    if mode == "I;16":
        image = Image.fromarray(gray[..., 0].astype(np.uint16) * 257)
    elif mode == "1":
        image = Image.fromarray(expected[..., 0]).convert("1", dither=Image.Dither.NONE)
    elif mode == "P":
        image = Image.fromarray(corners()).quantize(9, dither=Image.Dither.NONE)
    else:
        image = Image.fromarray(corners()).convert(mode)
    assert near(read_image(saved(tmp_path, "jpg" if mode == "CMYK" else "png", image)).frame, expected)


@pytest.mark.parametrize("suffix", ["png", "webp", "avif", "heic"])
def test_transparency_is_blended_on_white(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(np.dstack([corners(), np.full((48, 64), 255, np.uint8)]))
    image.paste((0, 0, 0, 0), (0, 0, 64, 24))
    still = read_image(saved(tmp_path, suffix, image))
    assert still.frame[:20].min() > 248
    assert near(still.frame[28:], corners()[28:])
    assert still.notes == ("transparent areas blended on white",)


def test_a_transparent_color_key_is_blended_on_white(tmp_path: Path) -> None:
    still = read_image(saved(tmp_path, "png", Image.fromarray(corners()), transparency=(220, 30, 30)))
    assert (still.frame[:24, :32] == 255).all()
    assert still.notes == ("transparent areas blended on white",)


def test_half_transparency_blends_half_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    assert abs(int(read_image(saved(tmp_path, "png", image)).frame[9, 9, 0]) - 127) <= 1


def test_color_profiles_are_applied_with_a_note(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")  # no profile of RGB
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb)  # red and blue exchanged: whoever heeds the profile sees it
    red, blue = swapped.find(b"rXYZ"), swapped.find(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    for name in (b"sRGB", b"s\0R\0G\0B"):
        swapped = swapped.replace(name, name.lower().replace(b"s", b"x"))
    image = Image.fromarray(corners())
    still = read_image(saved(tmp_path, "png", image, icc_profile=bytes(swapped)))
    assert near(still.frame, corners()[..., ::-1])
    assert still.notes == ("converted from its color profile to sRGB",)
    assert read_image(saved(tmp_path, "png", image, icc_profile=srgb)).notes == ()
    for broken in (b"nonsense", srgb[:200], ImageCms.ImageCmsProfile(lab).tobytes()):
        still = read_image(saved(tmp_path, "png", image, icc_profile=broken))
        assert near(still.frame, corners())
        assert still.notes == ("its color profile is invalid: sRGB assumed",)


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
def test_the_first_frame_of_an_animation_is_read(tmp_path: Path, suffix: str) -> None:
    others = [Image.fromarray(corners()[::-1].copy())] * 2
    path = saved(tmp_path, suffix, Image.fromarray(corners()), save_all=True, append_images=others)
    still = read_image(path)
    assert near(still.frame, corners())
    assert still.notes[0].startswith("the first of its ")


@pytest.mark.parametrize("suffix", SAVED)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncation_in_every_format_gives_one_error_line(tmp_path: Path, suffix: str, share: float) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    path = saved(tmp_path, suffix, Image.fromarray(frame))
    path.write_bytes(path.read_bytes()[: max(32, int(share * path.stat().st_size))])
    assert "truncated" in error(path).message


@pytest.mark.parametrize("suffix", SAVED)
def test_random_corruption_gives_at_most_one_error_line(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    path = saved(tmp_path, suffix, Image.fromarray(corners()))
    data = path.read_bytes()
    for _ in range(40):
        noisy = np.frombuffer(data, np.uint8).copy()
        noisy[random.integers(12, len(data), 6)] = random.integers(0, 256, 6)
        path.write_bytes(noisy.tobytes())
        try:
            assert read_image(path).frame.shape[-1] == 3
        except InputError as found:
            assert "\n" not in found.message  # noqa: PT017 (either is right)


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tiff", "ppm", "ico", "pcx", "eps"])
def test_other_formats_are_rejected(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(corners()).save(tmp_path / f"a.{suffix}")
    assert "is not an image" in error(tmp_path / f"a.{suffix}").message


def test_heic_without_its_plugin_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "heic", Image.fromarray(corners()))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "pavdm_cli.video.io.image.find_spec", lambda name: None if name == "pillow_heif" else find(name)
    )
    refusal = error(path)
    assert "needs pillow-heif" in refusal.message
    assert "pip install" in refusal.hint
    assert "pillow-heif" in refusal.hint


def png_header(width: int, height: int) -> bytes:
    """A PNG of one flat color, as small as it can be."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    lines = zlib.compressobj(9)
    body = b"".join([lines.compress(bytes(1 + -(-width // 8))) for _ in range(min(height, 4096))]) + lines.flush()
    head = width.to_bytes(4) + height.to_bytes(4) + b"\1\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(2_000_000, 1), (1, 2_000_000), (MAX_ASPECT_RATIO * 9 + 1, 9)])
def test_a_too_narrow_image_is_rejected(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png_header(*size))
    start = time.process_time()
    assert f"{size[0]}x{size[1]} pixels, too narrow" in error(tmp_path / "a.png").message
    assert time.process_time() - start < 1


def test_oversized_images_are_rejected_without_allocating_them(tmp_path: Path) -> None:
    bombs = [(9000, 9000), (16000, 16000), (2**31 - 1, 2**31 - 1)]
    for number, size in enumerate(bombs):
        (tmp_path / f"{number}.png").write_bytes(png_header(size[0], size[1]) if size[0] < 2**30 else forged(*size))
    data = bytearray(saved(tmp_path, "webp", Image.new("RGB", (64, 64)), lossless=True).read_bytes())
    data[21:25] = (16383 | 16383 << 14).to_bytes(4, "little")  # of VP8L: width and height less one
    (tmp_path / "3.webp").write_bytes(data)
    script = """
        import resource, sys
        from pavdm_cli.errors import InputError
        from pavdm_cli.video import read_image
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sys.argv[1:]:
            try:
                read_image(path)
                sys.exit(f"{path} was read")
            except InputError as error:
                print(error.message)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    paths = [str(tmp_path / name) for name in ("0.png", "1.png", "2.png", "3.webp")]
    command = [sys.executable, "-c", textwrap.dedent(script), *paths]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, grown = result.stdout.splitlines()
    assert all("more" in line for line in lines), lines
    assert int(grown) < 60_000  # KB
    assert result.stderr == ""


def forged(width: int, height: int) -> bytes:
    data = bytearray(png_header(8, 8))
    data[16:24] = width.to_bytes(4) + height.to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)
