"""Damage to the headers of audio is reported before anything is written, or does no harm."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from support.clips import ClipSpec, grays, make
from support.extending import write_extension

from pavdm_cli.errors import InputError, OutputError, PavdmError
from pavdm_cli.video import check_extension, open_video
from pavdm_cli.video.audio import copy as audio_copy
from pavdm_cli.video.write import extend

NEW = [np.full((48, 64, 3), 200, np.uint8)] * 2
# Codec, container, and what stands next to the fields that describe the audio.
KINDS = [
    ("aac", "mp4", (b"soun", b"mp4a", b"esds")),
    ("libmp3lame", "mp4", (b"soun", b"mp4a", b"esds")),
    ("pcm_s16le", "mov", (b"soun", b"sowt")),
    ("aac", "mkv", (b"A_AAC",)),
    ("flac", "mkv", (b"A_FLAC", b"fLaC")),
    ("libopus", "mkv", (b"A_OPUS", b"OpusHead")),
]


def damage(data: bytes, places: tuple[bytes, ...], rng: random.Random) -> bytes:
    """Change a few bytes around one of the places."""
    found = [match.start() for place in places for match in re.finditer(re.escape(place), data)]
    place, damaged = rng.choice(found), bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = min(len(data) - 1, max(0, place + rng.randint(-24, 60)))
        damaged[index] = rng.choice((0, 255, rng.randrange(256), damaged[index] ^ 1 << rng.randrange(8)))
    return bytes(damaged)


def outcomes(folder: Path, codec: str, kind: str, places: tuple[bytes, ...], count: int) -> list[str]:
    """What happens to damaged inputs: rejected before anything is written, written, or failed."""
    source = folder / f"in.{kind}"
    data = make(source, grays(6), ClipSpec(audio=codec)).read_bytes()
    results = []
    for seed in range(count):
        rng = random.Random(f"{codec} {seed}")
        source.write_bytes(damage(data, places, rng))
        target = folder / rng.choice(("out.mp4", "out.mkv"))
        try:
            video = open_video(source)
            check_extension(video, target)
        except (InputError, OutputError):
            results.append("rejected")
            continue
        try:
            write_extension(video, target, NEW)
            target.unlink()
            results.append("written")
        except PavdmError:
            results.append("failed")
    return results


@pytest.mark.parametrize(("codec", "kind", "places"), KINDS)
def test_damaged_audio_is_rejected_early_or_written(
    tmp_path: Path, codec: str, kind: str, places: tuple[bytes, ...]
) -> None:
    results = outcomes(tmp_path, codec, kind, places, 24)
    assert "failed" not in results
    assert "written" in results


def test_without_the_check_such_audio_fails_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extend, "check_packets", lambda *args: None)
    assert "failed" in outcomes(tmp_path, *KINDS[-1], 40)


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    data = make(source, grays(6), ClipSpec(audio="libopus")).read_bytes()
    element = data.index(b"OpusHead") - 3  # CodecPrivate, which MP4 needs
    source.write_bytes(data[:element] + b"\0" + data[element + 1 :])
    message = r"the audio of .*in\.mkv is damaged and cannot be copied to a \.mp4 file"
    with pytest.raises(InputError, match=message) as error:
        check_extension(open_video(source), tmp_path / "out.mp4")
    assert error.value.hint == "use -o x.mkv, or --audio drop"
    check_extension(open_video(source), tmp_path / "out.mkv")


def test_the_check_reads_a_few_packets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = list[int]()
    first_packets = audio_copy.AudioCopy.first_packets

    def count(self: audio_copy.AudioCopy, limit: int) -> list[audio_copy.AudioPacket]:
        packets = first_packets(self, limit)
        counted.append(len(packets))
        return packets

    monkeypatch.setattr(audio_copy.AudioCopy, "first_packets", count)
    check_extension(open_video(make(tmp_path / "in.mkv", grays(30), ClipSpec(audio="libopus"))), tmp_path / "o.mkv")
    assert counted == [audio_copy.CHECKED_PACKETS]
