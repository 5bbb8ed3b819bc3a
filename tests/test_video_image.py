"""Images read by FFmpeg and by Pillow, correctly oriented and colored; hostile ones are one clear error."""

from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, corners, grays, make

from pavdm_cli.errors import InputError
from pavdm_cli.video import read_image
from pavdm_cli.video.io.input import Limits


def write(path: Path, frame: np.ndarray, pixels: str = "", exif: bytes = b"") -> Path:
    """A picture as a PNG or a JPEG; `pixels` in the codec's own form."""
    codec = av.CodecContext.create("png" if path.suffix == ".png" else "mjpeg", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt = pixels or ("rgb24" if path.suffix == ".png" else "yuvj444p")
    codec.time_base = Fraction(1, 25)
    codec.options = {} if path.suffix == ".png" else {"qmin": "1", "qmax": "1"}
    form = {2: "gray", 3: "rgb24"}[frame.ndim] if frame.shape[-1] != 4 else "rgba"
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=form).reformat(format=codec.pix_fmt)
    picture.pts = 0
    data = b"".join(bytes(packet) for packet in [*codec.encode(picture), *codec.encode(None)])
    path.write_bytes(with_exif(data, exif) if exif else data)
    return path


def with_exif(data: bytes, exif: bytes) -> bytes:
    if data.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + data[2:]
    chunk = b"eXIf" + exif
    return data[:33] + len(exif).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + data[33:]


def turned(number: int, big: bool = False) -> bytes:
    """EXIF that holds one other tag, then the orientation."""
    order = "big" if big else "little"

    def entry(tag: int, value: int) -> bytes:
        head = tag.to_bytes(2, order) + (3).to_bytes(2, order) + (1).to_bytes(4, order)
        return head + value.to_bytes(2, order) + bytes(2)

    start = (b"MM\0*" if big else b"II*\0") + (8).to_bytes(4, order) + (2).to_bytes(2, order)
    return start + entry(0x0100, 7) + entry(0x0112, number) + bytes(4)


@pytest.mark.parametrize("height", [48, 721])
def test_a_png_is_read_exactly(tmp_path, height):
    frame = np.random.default_rng(0).integers(0, 256, (height, 63, 3), np.uint8)
    still = read_image(write(tmp_path / "a.png", frame))
    assert np.array_equal(still.frame, frame)
    assert still.notes == ()
    assert len(still.digest) == 16


@pytest.mark.parametrize("height", [48, 722])
def test_a_jpeg_keeps_its_colors(tmp_path, height):
    frame = corners(height)
    assert np.abs(read_image(write(tmp_path / "a.jpg", frame)).frame.astype(int) - frame).mean() < 2


def test_the_digest_identifies_the_file(tmp_path):
    path, other = write(tmp_path / "a.png", corners()), write(tmp_path / "b.png", corners()[::-1])
    assert read_image(path).digest == read_image(path).digest != read_image(other).digest


UPRIGHT = {
    1: lambda frame: frame,
    2: lambda frame: frame[:, ::-1],
    3: lambda frame: frame[::-1, ::-1],
    4: lambda frame: frame[::-1],
    5: lambda frame: frame.transpose(1, 0, 2),
    6: lambda frame: np.rot90(frame, -1),
    7: lambda frame: frame[::-1, ::-1].transpose(1, 0, 2),
    8: lambda frame: np.rot90(frame, 1),
}


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_exif_orientation_is_applied(tmp_path, number, name):
    path = write(tmp_path / name, corners(), exif=turned(number, big=number % 2 == 0))
    still = read_image(path)
    expected = UPRIGHT[number](corners())
    assert still.frame.shape == expected.shape
    assert np.abs(still.frame.astype(int) - expected).mean() < 2
    assert still.notes == (("rotated upright",) if number > 1 else ())


@pytest.mark.parametrize("exif", [b"II", b"II*\0\xff\xff\xff\xff", turned(9), turned(0), turned(6)[:15], b"\0" * 40])
def test_invalid_exif_orientation_is_ignored(tmp_path, exif):
    assert np.array_equal(read_image(write(tmp_path / "a.png", corners(), exif=exif)).frame, corners())


def test_transparency_is_blended_on_white_with_a_note(tmp_path):
    frame = np.dstack([corners(), np.full((48, 64), 255, np.uint8)])
    assert read_image(write(tmp_path / "a.png", frame, "rgba")).notes == ()
    frame[:24, :, 3] = 0
    still = read_image(write(tmp_path / "b.png", frame, "rgba"))
    assert (still.frame[:24] == 255).all()
    assert np.array_equal(still.frame[24:], corners()[24:])
    assert "transparent" in still.notes[0]


def test_gray_and_16_bit_images_are_read(tmp_path):
    gray = write(tmp_path / "g.png", corners()[..., 0], "gray")
    assert np.array_equal(read_image(gray).frame, corners()[..., :1].repeat(3, 2))
    deep = write(tmp_path / "d.png", corners(), "rgb48be")
    assert np.abs(read_image(deep).frame.astype(int) - corners()).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.995])
def test_a_truncated_image_is_rejected(tmp_path, name, share):
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    path = write(tmp_path / name, frame, exif=turned(6) + b"\xff\xd9")  # a thumbnail has an end of its own
    path.write_bytes(path.read_bytes()[: max(9, int(share * path.stat().st_size))])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


def test_trailing_data_after_an_image_is_ignored(tmp_path):
    for name in ("a.png", "a.jpg"):
        path = write(tmp_path / name, corners())
        path.write_bytes(path.read_bytes() + b"notes of a camera" * 9)
        assert read_image(path).frame.shape == corners().shape


def test_an_oversized_image_is_rejected_before_decoding(tmp_path):
    path = write(tmp_path / "a.png", corners())
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)
    with pytest.raises(InputError, match="more pixels than fit in memory"):
        read_image(path)
    with pytest.raises(InputError, match="64x48"):
        read_image(write(tmp_path / "a.jpg", corners()), Limits(pixels=64 * 48 - 1))


def hostile(folder: Path, name: str) -> Path | str:
    """What is no picture, by name."""
    if name == "http":
        return "http://127.0.0.1:9/a.png"
    if name in ("damaged.png", "damaged.jpg"):
        path = write(folder / name, corners())
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 20] = bytes(20)
        path.write_bytes(data if name.endswith("png") else data[:4] + bytes(200) + b"\xff\xda\0\2" + data[-2:])
        return path
    if name == "video.png":
        return make(folder / "v.mp4", grays(3), ClipSpec()).rename(folder / name)
    contents = {"empty.png": b"", "text.jpg": b"a letter\n" * 30, "list.png": b"#EXTM3U\n#EXTINF:1,\na.png\n"}
    if name in contents:
        (folder / name).write_bytes(contents[name])
    return folder / name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http", "is an address"),
        ("missing.png", "does not exist"),
        ("", "is a folder"),
        ("empty.png", "is empty"),
        ("text.jpg", "is not an image"),
        ("list.png", "is not an image"),
        ("video.png", "is not an image"),
        ("damaged.png", "is damaged"),
        ("damaged.jpg", "truncated"),
    ],
)
def test_a_file_that_is_no_image_gives_one_error_line(tmp_path, name, words):
    with pytest.raises(InputError) as excinfo:
        read_image(hostile(tmp_path, name))
    assert words in excinfo.value.message
    assert "\n" not in excinfo.value.message
    assert excinfo.value.hint
    assert excinfo.value.exit_code == 3
