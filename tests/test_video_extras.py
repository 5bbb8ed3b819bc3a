"""Tags, chapters, roles, subtitles, covers, attachments and time codes are copied, or their loss is reported."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from av.stream import Disposition
from support.clips import ClipSpec, corners, grays, make
from support.extending import write_extension

from pavdm_cli.video import ExtensionOptions, FrameReader, VideoInfo, open_video
from pavdm_cli.video.io.summary import describe_video
from pavdm_cli.video.write.extras import stream_title
from pavdm_cli.video.write.read_extras import shift_chapters
from pavdm_cli.video.write.subtitles import Subtitles

NEW = [np.full((64, 96, 3), 200, np.uint8)] * 5
CHAPTERS = ";FFMETADATA1\ntitle=Holiday\nartist=Someone\ncomment=By the sea\nplace=Rügen\n" + "".join(
    f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"
    for start, end, title in ((0, 400, "One"), (400, 1000, "Two"))
)
CUES = "1\n00:00:00,200 --> 00:00:00,700\nHello\n\n2\n00:00:00,800 --> 00:00:00,900\nAgain\n\n"


def ffmpeg(*words: object) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, words)], check=True)


def rich(path: Path, *more: object) -> VideoInfo:
    """A film with a title, a comment, chapters, a commentary, subtitles and a cover, all in one file."""
    folder = path.parent
    make(folder / "plain.mp4", grays(10, 64, 96), ClipSpec(audio="aac"))
    make(folder / "cover.png", [corners(64, 64)], ClipSpec("png", pixels="rgb24"))
    (folder / "chapters.txt").write_text(CHAPTERS, encoding="utf-8")
    (folder / "cues.srt").write_text(CUES)
    inputs = [word for name in ("plain.mp4", "chapters.txt", "cues.srt", "cover.png") for word in ("-i", folder / name)]
    cover = (
        ("-map", "3:v", "-disposition:v:1", "attached_pic")
        if path.suffix == ".mp4"
        else ("-attach", folder / "cover.png")
    )
    kind = () if path.suffix == ".mp4" else ("-metadata:s:t", "mimetype=image/png")
    streams = ("-map", "0:v", "-map", "0:a", "-map", "0:a", "-map", "2:s", *cover, "-map_metadata", "1", *kind)
    roles = ("-disposition:a:1", "comment", "-metadata:s:a:1", "title=Commentary", "-metadata:s:a:1", "language=eng")
    text = "mov_text" if path.suffix == ".mp4" else "srt"
    ffmpeg(*inputs, *streams, "-c", "copy", "-c:s", text, *roles, *more, path)
    return open_video(path)


def lower(tags: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in tags.items()}


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_all_extras_are_copied_to_the_same_container(tmp_path: Path, kind: str) -> None:
    video = rich(tmp_path / f"in.{kind}")
    notes = write_extension(video, tmp_path / f"out.{kind}", NEW, ExtensionOptions(metadata={"pavdm": "1"}))
    with av.open(str(tmp_path / f"out.{kind}")) as file:
        tags = lower(file.metadata)
        assert (tags["title"], tags["artist"], tags["original_comment"]) == ("Holiday", "Someone", "By the sea")
        assert tags["comment"] == '{"pavdm":"1"}'
        assert tags.get("place") == (None if kind == "mp4" else "Rügen")  # the muxer that made the input drops it
        chapters = [
            (chapter["metadata"]["title"], float(chapter["end"] * chapter["time_base"])) for chapter in file.chapters()
        ]
        assert chapters == [("One", 0.4), ("Two", 1.0)]
        first, second = file.streams.audio
        assert (first.language, second.language) == ("deu", "eng")
        assert second.disposition == Disposition.comment
        assert "Commentary" in (second.metadata.get("title"), second.metadata.get("name"))
        cues = [bytes(packet) for packet in file.demux(file.streams.subtitles[0]) if packet.size > 2]
        assert [b"Hello" in cue or b"Again" in cue for cue in cues] == [True, True]
        assert float(file.duration) / 1e6 == pytest.approx(1.5, abs=0.03)
    with av.open(str(tmp_path / f"out.{kind}")) as file:
        cover = next(stream for stream in file.streams.video if stream.disposition & Disposition.attached_pic)
        assert bytes(next(file.demux(cover))) == (tmp_path / "cover.png").read_bytes()
    assert notes == [
        "the audio ends where the input's does",
        "the input's comment is stored as the tag original_comment",
    ]
    assert len(list(FrameReader(open_video(tmp_path / f"out.{kind}")))) == 15


def cues(path: Path) -> list[tuple[float, bytes]]:
    """Times and texts of the cues of MP4, without the empty ones between them."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(file.streams.subtitles[0]) if packet.size > 2]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]


@pytest.mark.parametrize("timescale", [1_000_003, 7_654_321, 96_000_000])
def test_subtitles_have_any_timescale(tmp_path: Path, timescale: int) -> None:
    path = rich(tmp_path / "in.mp4").path
    data = path.read_bytes()
    field = data.rindex(b"mdhd", 0, data.index(b"sbtl")) + 16  # after name, version and two dates
    path.write_bytes(data[:field] + timescale.to_bytes(4) + data[field + 4 :])
    write_extension(open_video(path), tmp_path / "out.mp4", NEW)
    (first, again), (copied_first, copied_again) = cues(path), cues(tmp_path / "out.mp4")
    assert (first[1], again[1]) == (copied_first[1], copied_again[1])
    assert (copied_first[0], copied_again[0]) == pytest.approx((first[0], again[0]), abs=1e-5)


@pytest.mark.parametrize("times", [(0.2, 0.2, 0.2), (0.8, 0.2, 0.5), (0.1, 0.3, 0.0)], ids=str)
def test_cues_out_of_order_start_with_the_one_before(tmp_path: Path, times: tuple[float, ...]) -> None:
    path = rich(tmp_path / "in.mp4").path
    with av.open(str(path)) as source, av.open(str(tmp_path / "out.mp4"), "w") as file:
        stream = source.streams.subtitles[0]

        def shuffled(*streams: Any) -> Iterator[av.Packet[Any]]:
            for packet, time in zip(source.demux(*streams), times, strict=False):
                packet.pts = packet.dts = round(time / packet.time_base)
                yield packet

        extras = SimpleNamespace(offset=Fraction(0), subtitles=[stream])
        target = file.add_stream_from_template(stream)
        subtitles = Subtitles(SimpleNamespace(demux=shuffled), extras, {stream.index: target})  # type: ignore[arg-type]
        packets = subtitles.packets_until(None)
        starts = [float(packet.pts * packet.time_base) for packet in packets[: len(times)]]
        assert starts == pytest.approx([max(times[: number + 1]) for number in range(len(times))])
        file.mux(packets)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_titles_that_mp4_stores_as_handler_names_are_copied(tmp_path: Path, suffix: str) -> None:
    plain = make(tmp_path / "plain.mp4", grays(5, 64, 96), ClipSpec(audio="aac"))
    maps, path = ("-map", "0", "-map", "0:a", "-c", "copy"), tmp_path / "in.mp4"
    names = [("v", "Core Media Video"), ("a:0", "Main mix"), ("a:1", "SoundHandler")]
    handlers = [word for stream, name in names for word in (f"-metadata:s:{stream}", f"handler_name={name}")]
    ffmpeg("-i", plain, *maps, *handlers, path)
    write_extension(open_video(path), tmp_path / f"out{suffix}", NEW)
    with av.open(str(tmp_path / f"out{suffix}")) as file:
        titles = [stream_title(stream.metadata) for stream in file.streams]
    assert titles == ["", "Main mix", ""]
    assert [track["title"] for track in describe_video(open_video(tmp_path / f"out{suffix}"))["audio"]] == [
        "Main mix",
        None,
    ]


@pytest.mark.parametrize(
    ("suffix", "lost"),
    [
        (".mkv", ["mov_text subtitles"]),
        (".webm", ["mov_text subtitles", "the cover"]),
        (".gif", ["chapters", "tags", "mov_text subtitles", "the cover"]),
    ],
)
def test_extras_that_a_container_cannot_hold_are_reported(tmp_path: Path, suffix: str, lost: list[str]) -> None:
    video = rich(tmp_path / "in.mp4")
    notes = write_extension(
        video, tmp_path / f"out{suffix}", NEW, ExtensionOptions(audio="keep" if suffix == ".mkv" else "drop")
    )
    assert f"dropped: {', '.join(lost)}" in notes


def test_chapters_and_subtitles_are_shifted_with_the_start(tmp_path: Path) -> None:
    video = rich(tmp_path / "in.mkv", "-output_ts_offset", 5)
    assert video.start >= 5
    write_extension(video, tmp_path / "out.mkv", NEW)
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert [float(chapter["start"] * chapter["time_base"]) for chapter in file.chapters()] == pytest.approx(
            [0, 0.4], abs=0.03
        )
        cue = next(file.demux(file.streams.subtitles[0]))
        assert float(cue.pts * cue.time_base) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_subtitles_before_the_start_are_clipped(tmp_path: Path, kind: str) -> None:
    plain = make(tmp_path / "plain.mp4", grays(10, 64, 96))
    (tmp_path / "cues.srt").write_text(CUES)
    codec = "mov_text" if kind == "mp4" else "srt"
    inputs = ("-itsoffset", "0.85", "-i", plain, "-i", tmp_path / "cues.srt")
    ffmpeg(*inputs, "-map", "0", "-map", "1", "-c", "copy", "-c:s", codec, tmp_path / f"in.{kind}")
    write_extension(open_video(tmp_path / f"in.{kind}"), tmp_path / f"out.{kind}", NEW)
    with av.open(str(tmp_path / f"out.{kind}")) as file:
        cues = [packet for packet in file.demux(file.streams.subtitles[0]) if packet.size > 2]
        times = [float(time * cue.time_base) for cue in cues for time in (cue.pts, cue.duration)]
    assert [bytes(cue)[-5:] for cue in cues] == [b"Again"]
    assert times == pytest.approx([0, 0.05], abs=0.002)


def test_chapters_before_the_start_are_clipped() -> None:
    base = Fraction(1, 1000)
    chapters = [
        {"id": k, "start": 4000 * k, "end": 4000 * (k + 1), "time_base": base, "metadata": {}} for k in range(3)
    ]
    assert [(chapter["start"], chapter["end"]) for chapter in shift_chapters(chapters, Fraction(5))] == [
        (0, 3000),
        (3000, 7000),
    ]
    assert [chapter["end"] for chapter in shift_chapters(chapters[:1], Fraction(5))] == [
        4000
    ]  # counted from the first frame


def test_attached_fonts_are_copied_to_matroska_only(tmp_path: Path) -> None:
    make(tmp_path / "plain.mkv", grays(4, 64, 96))
    (tmp_path / "font.ttf").write_bytes(b"\0\1\0\0" + bytes(range(200)))
    attach = ("-attach", tmp_path / "font.ttf", "-metadata:s:t", "mimetype=application/x-truetype-font")
    ffmpeg("-i", tmp_path / "plain.mkv", "-c", "copy", *attach, tmp_path / "in.mkv")
    video = open_video(tmp_path / "in.mkv")
    assert write_extension(video, tmp_path / "out.mkv", NEW) == []
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert bytes(file.streams.attachments[0].data) == (tmp_path / "font.ttf").read_bytes()
    assert write_extension(video, tmp_path / "out.mp4", NEW) == ["dropped: the attachment font.ttf"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("rate", "is_copied"), [(Fraction(25), True), (Fraction(24000, 1001), True), (Fraction(7), False)]
)
def test_a_time_code_is_copied_or_reported(tmp_path: Path, suffix: str, rate: Fraction, is_copied: bool) -> None:
    make(tmp_path / "plain.mov", grays(4, 64, 96), ClipSpec(rate=rate))
    code = ("-metadata", "timecode=00:00:41:16")
    ffmpeg("-i", tmp_path / "plain.mov", "-c", "copy", *code, tmp_path / ("in.mov" if is_copied else "in.mkv"))
    video = open_video(tmp_path / ("in.mov" if is_copied else "in.mkv"))
    notes = write_extension(video, tmp_path / f"out{suffix}", NEW)
    with av.open(str(tmp_path / f"out{suffix}")) as file:
        timecodes = {
            value for stream in file.streams for key, value in stream.metadata.items() if key.lower() == "timecode"
        }
    stored = is_copied or suffix == ".mkv"
    assert timecodes == ({"00:00:41:16"} if stored else set())
    assert notes == ([] if stored else ["dropped: the time code 00:00:41:16"])
