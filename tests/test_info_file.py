"""`pavdm info` of any video: what its picture, colour, sound and other tracks are."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import pytest
from support.clips import Recipe, corners, greys, make
from support.command import pavdm

from pavdm_cli.video import VideoWriter
from pavdm_cli.video.io.summary import clock


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


def test_size_rate_length_codecs_and_sound_are_told():
    make(Path("v.mp4"), greys(30), Recipe(audio="aac", seconds=2.5))
    told = dict(rows())
    assert told["length"] == "0:00:03.0, 30 frames"
    assert told["picture"] == "h264, 64x48, 10 frames/s"
    assert told["pixels"] == "yuv420p, 8 bits per colour"
    assert told["colour"] == "primaries bt709, transfer bt709, matrix bt709, range limited"
    assert told["sound"].startswith("aac, 48000 Hz, stereo, deu")
    assert told["container"].startswith("mp4, ")
    assert "rotation" not in told
    assert facts()["audio"][0]["seconds"] == pytest.approx(2.5, abs=0.05)


def test_a_file_without_sound_says_so():
    make(Path("v.mkv"), greys(5))
    assert dict(rows("v.mkv"))["sound"] == "none"
    assert facts("v.mkv")["audio"] == []


@pytest.mark.parametrize(
    ("turn", "mirrored", "size", "says"),
    [
        (90, False, (48, 64), "90 degrees counter-clockwise"),
        (180, False, (64, 48), "180 degrees counter-clockwise"),
        (270, False, (48, 64), "270 degrees counter-clockwise"),
        (0, True, (64, 48), "mirrored"),
        (90, True, (48, 64), "mirrored, and turned by a quarter"),
    ],
)
def test_a_turned_picture_is_told_as_it_is_shown(turn, mirrored, size, says):
    make(Path("v.mp4"), [corners()] * 3, Recipe(turn=turn, mirrored=mirrored))
    told = facts()
    assert ((told["width"], told["height"]), told["rotation"]) == (size, says)


def test_depth_colour_and_shape_of_pixels_are_told():
    hdr = Recipe(codec="hevc", pixels="yuv420p10le", color_space=(9, 16, 9), aspect=Fraction(4, 3))
    make(Path("v.mp4"), greys(4), hdr)
    told = facts()
    assert (told["codec"], told["pixel_format"], told["bits"]) == ("hevc", "yuv420p10le", 10)
    assert told["colour"] == {
        "primaries": "bt2020",
        "transfer": "pq",
        "matrix": "bt2020",
        "range": "limited",
        "hdr": "PQ",
    }
    assert told["sample_aspect"] == "4/3"
    assert "pixels 4:3" in dict(rows())["picture"]


def test_a_variable_rate_is_told():
    times = [Fraction(n, 10) for n in (0, 1, 2, 3, 7, 8)]
    make(Path("v.mkv"), greys(6), Recipe(times=times))
    assert facts("v.mkv")["variable_rate"] is True
    assert "variable" in dict(rows("v.mkv"))["picture"]


def test_every_track_of_sound_and_subtitles_is_told():
    make(Path("v.mkv"), greys(5), Recipe(audio="aac"))
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
    told = rows("two.mkv")
    assert [name for name, _ in told].count("sound") == 2
    assert any("Commentary" in line for name, line in told if name == "sound")
    assert ("subtitles", "subrip, fra") in told


def test_of_a_video_made_here_the_file_is_told_beside_its_parameters():
    with VideoWriter("v.mp4", 64, 48, 8, {"prompt": "a red ball", "seed": 3, "frames": 8}) as writer:
        writer.write(greys(8))
    lines = pavdm("info", "v.mp4").out.splitlines()
    assert lines[0].split(maxsplit=1) == ["prompt", "a red ball"]
    assert "length     0:00:01.0, 8 frames" in lines
    assert lines[-1] == "pavdm generate 'a red ball' --frames 8 --seed 3"
    assert json.loads(pavdm("info", "v.mp4", "--json").out)["seed"] == 3


@pytest.mark.parametrize(
    ("seconds", "says"), [(0, "0:00:00.0"), (59.96, "0:01:00.0"), (3599.9, "0:59:59.9"), (36000.5, "10:00:00.5")]
)
def test_a_length_is_hours_minutes_and_seconds(seconds, says):
    assert clock(seconds) == says


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
def test_a_comment_in_damaged_json_is_named_and_any_other_is_not(comment, code, monkeypatch):
    monkeypatch.setattr("pavdm_cli.video.write.writer.to_comment", lambda metadata: comment)
    with VideoWriter("v.mp4", 96, 64, 8) as file:
        file.write(greys(8, 64, 96))
    result = pavdm("info", "v.mp4")
    assert (result.code, "metadata that cannot be read" in result.err) == (code, code == 3)
    result = pavdm("extend", "v.mp4", "-p", "a red ball", "--seconds", "1", "--plan")
    assert (result.code, "damaged metadata is ignored" in result.err) == (0, code == 3)
