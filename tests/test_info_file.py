"""`pavdm info` of any video: picture, color, sound and other tracks."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image
from support.clips import ClipSpec, corners, grays, make
from support.command import pavdm

from pavdm_cli.video import VideoWriter
from pavdm_cli.video.io.summary import format_duration


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def facts(name: str = "v.mp4"):
    """What --json says of a file."""
    code, out, err = pavdm("info", name, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["file"]


def rows(name: str = "v.mp4") -> list[tuple[str, str]]:
    """What is printed of a file that pavdm did not make."""
    code, out, err = pavdm("info", name)
    assert (code, err) == (0, "")
    return [tuple(line.split(maxsplit=1)) for line in out.splitlines()]


def test_info_shows_size_rate_duration_codecs_and_audio():
    make(Path("v.mp4"), grays(30), ClipSpec(audio="aac", seconds=2.5))
    fields = dict(rows())
    assert fields["duration"] == "3.0 s, 30 frames"
    assert fields["video"] == "h264, 64x48, 10 fps"
    assert fields["pixels"] == "yuv420p, 8 bits per channel"
    assert fields["color"] == "primaries bt709, transfer bt709, matrix bt709, range limited"
    assert fields["audio"].startswith("aac, 48000 Hz, stereo, deu")
    assert fields["container"].startswith("mp4, ")
    assert "rotation" not in fields
    assert facts()["audio"][0]["seconds"] == pytest.approx(2.5, abs=0.05)


def test_info_reports_missing_audio():
    make(Path("v.mkv"), grays(5))
    assert dict(rows("v.mkv"))["audio"] == "none"
    assert facts("v.mkv")["audio"] == []


@pytest.mark.parametrize(
    ("turn", "mirrored", "size", "expected"),
    [
        (90, False, (48, 64), "90 degrees counter-clockwise"),
        (180, False, (64, 48), "180 degrees counter-clockwise"),
        (270, False, (48, 64), "270 degrees counter-clockwise"),
        (0, True, (64, 48), "mirrored"),
        (90, True, (48, 64), "mirrored and rotated by 90 degrees"),
    ],
)
def test_info_shows_the_rotation(turn, mirrored, size, expected):
    make(Path("v.mp4"), [corners()] * 3, ClipSpec(turn=turn, mirrored=mirrored))
    fields = facts()
    assert ((fields["width"], fields["height"]), fields["rotation"]) == (size, expected)


def test_info_shows_bit_depth_color_space_and_aspect_ratio():
    hdr = ClipSpec(codec="hevc", pixels="yuv420p10le", color_space=(9, 16, 9), aspect=Fraction(4, 3))
    make(Path("v.mp4"), grays(4), hdr)
    fields = facts()
    assert (fields["codec"], fields["pixel_format"], fields["bit_depth"]) == ("hevc", "yuv420p10le", 10)
    assert fields["color_space"] == {
        "primaries": "bt2020",
        "transfer": "pq",
        "matrix": "bt2020",
        "range": "limited",
        "hdr": "PQ",
    }
    assert fields["sample_aspect_ratio"] == "4/3"
    assert "pixels 4:3" in dict(rows())["video"]


def test_info_shows_a_variable_frame_rate():
    times = [Fraction(n, 10) for n in (0, 1, 2, 3, 7, 8)]
    make(Path("v.mkv"), grays(6), ClipSpec(times=times))
    assert facts("v.mkv")["variable_frame_rate"] is True
    assert "variable" in dict(rows("v.mkv"))["video"]


def test_info_shows_all_audio_and_subtitle_streams():
    make(Path("v.mkv"), grays(5), ClipSpec(audio="aac"))
    Path("s.srt").write_text("1\n00:00:00,000 --> 00:00:00,400\nhello\n\n")
    with av.open("v.mkv") as source, av.open("s.srt") as words, av.open("two.mkv", "w") as file:
        picture, sound = source.streams.video[0], source.streams.audio[0]
        copies = [file.add_stream_from_template(stream) for stream in (picture, sound, sound)]
        copies[2].metadata["title"] = "Commentary"
        copies.append(file.add_stream_from_template(words.streams.subtitles[0]))
        copies[3].metadata["language"] = "fra"
        for packets, first in ((source.demux(), 0), (words.demux(), 3)):
            for packet in packets:
                if packet.size:
                    packet.stream = copies[first + packet.stream_index]
                    file.mux(packet)
    lines = rows("two.mkv")
    assert [name for name, _ in lines].count("audio") == 2
    assert any("Commentary" in line for name, line in lines if name == "audio")
    assert ("subtitles", "subrip, fra") in lines


def test_info_shows_generation_parameters_and_the_file():
    with VideoWriter("v.mp4", 64, 48, 8, {"prompt": "a red ball", "seed": 3, "frames": 8}) as writer:
        writer.write(grays(8))
    lines = pavdm("info", "v.mp4").out.splitlines()
    assert lines[0].split(maxsplit=1) == ["prompt", "a red ball"]
    assert "duration   1.0 s, 8 frames" in lines
    assert lines[-1] == "pavdm generate 'a red ball' --frames 8 --seed 3"
    assert json.loads(pavdm("info", "v.mp4", "--json").out)["seed"] == 3


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "0:01:00.0"), (3599.9, "0:59:59.9"), (36000.5, "10:00:00.5")],
)
def test_durations_are_seconds_below_a_minute_and_hours_minutes_seconds_above(seconds, expected):
    assert format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("comment", "code"),
    [
        ("[" * 100_000, 3),
        ('{"pavdm": "0.1.0", "prompt": "a", "seed": 1' + "0" * 400 + "}", 3),
        ('{"pavdm": "0.1.0", "prompt": "a", "guidance": NaN}', 3),
        ('{"pavdm": "0.1.0", "prompt": "\\ud800"}', 3),
        ("[Official video] a tram", 0),
        ('{"title": "a tram"}', 0),
    ],
)
def test_only_damaged_metadata_is_reported(comment, code, monkeypatch):
    monkeypatch.setattr("pavdm_cli.video.write.writer.to_comment", lambda metadata: comment)
    with VideoWriter("v.mp4", 96, 64, 8) as file:
        file.write(grays(8, 64, 96))
    result = pavdm("info", "v.mp4")
    assert (result.code, "metadata that cannot be read" in result.err) == (code, code == 3)
    result = pavdm("extend", "v.mp4", "-p", "a red ball", "--seconds", "1", "--plan")
    assert (result.code, "damaged metadata is ignored" in result.err) == (0, code == 3)


@pytest.mark.parametrize(("count", "size"), [(1, (66, 50)), (5, (330, 50)), (30, (396, 200))])
def test_a_contact_sheet_has_up_to_24_frames(count: int, size: tuple[int, int]) -> None:
    make(Path("v.mp4"), grays(count))
    code, _, err = pavdm("info", "v.mp4", "--sheet", "v.png")
    assert (code, err) == (0, "contact sheet: v.png\n")
    with Image.open("v.png") as image:
        assert image.size == size


@pytest.mark.parametrize(("name", "code"), [("v.jpg", 2), ("no/v.png", 4)])
def test_a_contact_sheet_that_cannot_be_written_is_one_line(name: str, code: int) -> None:
    make(Path("v.mp4"), grays(3))
    result = pavdm("info", "v.mp4", "--sheet", name)
    assert (result.code, result.out, result.err.count("\n")) == (code, "", 2)
