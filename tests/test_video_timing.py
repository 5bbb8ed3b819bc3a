"""Timestamps of continued videos: frame rate, true end, held frames, offsets and files that cannot seek."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, grays, make
from support.extending import write_extension

from pavdm_cli.errors import InputError
from pavdm_cli.video import FrameReader, VideoInfo, open_video, read_last_frames
from pavdm_cli.video.write.extend import check_extension

NEW = [np.full((48, 64, 3), 250 - 10 * k, np.uint8) for k in range(4)]
TENTH = Fraction(1, 10)


def remux(
    source: Path,
    target: Path,
    shift: Fraction = Fraction(0),
    last: Fraction | None = None,
    video_shift: Fraction = Fraction(0),
) -> Path:
    """Copy packets `shift` seconds later, those of video also `video_shift`; the last picture lasts `last`."""
    with av.open(str(source)) as old, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        packets = [packet for packet in old.demux() if packet.size]
        shown_last = max((packet for packet in packets if packet.stream.type == "video"), key=lambda packet: packet.pts)
        for packet in packets:
            if packet is shown_last and last is not None:
                packet.duration = round(last / packet.time_base)
            later = shift + (video_shift if packet.stream.type == "video" else 0)
            packet.pts, packet.dts = (stamp + round(later / packet.time_base) for stamp in (packet.pts, packet.dts))
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return target


def with_times(path: Path, milliseconds: Iterable[int], rate: Fraction = Fraction(10)) -> VideoInfo:
    times = [Fraction(time, 1000) for time in milliseconds]
    return open_video(make(path, grays(len(times)), ClipSpec(rate=rate, times=times)))


def start_times(path: Path) -> dict[str, Fraction]:
    with av.open(str(path)) as file:
        return {stream.type: stream.start_time * stream.time_base for stream in file.streams}


# The end


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_duration_of_the_last_frame_is_preserved(tmp_path: Path, kind: str, suffix: str) -> None:
    plain = make(tmp_path / "plain.mp4", grays(12), ClipSpec("mpeg4", audio="aac", seconds=4.1))
    video = open_video(remux(plain, tmp_path / f"in.{kind}", last=Fraction(3)))
    assert video.rate == 10
    assert float(video.end) == pytest.approx(4.1, abs=0.002)
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    out = open_video(tmp_path / f"out{suffix}")
    start = out.times[0]
    assert float(out.times[12] - start) == pytest.approx(4.1, abs=0.002)
    assert np.diff([float(time) for time in out.times[12:]]) == pytest.approx(0.1, abs=0.002)
    with av.open(str(out.path)) as file:
        assert file.duration / 1e6 == pytest.approx(4.5, abs=0.03)


def test_the_last_duration_of_gif_and_avi_is_preserved(tmp_path: Path) -> None:
    gif = remux(
        make(tmp_path / "plain.gif", grays(4), ClipSpec("gif", pixels="rgb8")), tmp_path / "in.gif", last=Fraction(2)
    )
    assert open_video(gif).last_duration == 2
    plain = make(tmp_path / "plain.avi", grays(4), ClipSpec("mpeg4"))
    with av.open(str(plain)) as old, av.open(str(tmp_path / "in.avi"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts = packet.dts = packet.dts + 7 * (packet.dts == 3)  # the muxer repeats the frame before
                new.mux(packet)
    video = open_video(tmp_path / "in.avi")
    assert video.times == [0, TENTH, 2 * TENTH, 10 * TENTH]
    assert video.rate == 10


def test_a_tiny_last_duration_becomes_one_frame(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.mp4", grays(12), ClipSpec("mpeg4"))
    video = open_video(remux(plain, tmp_path / "in.mp4", last=Fraction(1, 1000)))
    assert video.end == Fraction(12, 10)


@pytest.mark.parametrize("late", [Fraction(0), Fraction(1, 2), Fraction(3)])
def test_an_edit_list_that_starts_late_and_trims_the_end_adds_no_time(tmp_path: Path, late: Fraction) -> None:
    plain = make(tmp_path / "plain.mp4", grays(12), ClipSpec("mpeg4", audio="aac"))
    path = remux(plain, tmp_path / "in.mp4", video_shift=late)
    data = bytearray(path.read_bytes())
    duration = data.index(b"elst") + (24 if late else 12)  # of the last entry
    assert int.from_bytes(data[duration : duration + 4]) == 1200
    data[duration : duration + 4] = (800).to_bytes(4)
    path.write_bytes(data)
    video = open_video(path)
    assert (video.start, video.frames, video.last_duration) == (late, 8, TENTH)


# The rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_gap_in_a_trimmed_video_does_not_slow_down_the_new_frames(tmp_path: Path, suffix: str) -> None:
    video = with_times(tmp_path / f"in{suffix}", [40 * k + 120 * (k > 20) for k in range(24)], Fraction(25))
    assert video.rate == 25
    write_extension(video, tmp_path / "out.mp4", NEW)
    times = open_video(tmp_path / "out.mp4").times
    assert times[:24] == video.times
    assert [after - before for before, after in itertools.pairwise(times[23:])] == [Fraction(1, 25)] * 4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [Fraction(30), Fraction(60), Fraction(24000, 1001)])
def test_the_rate_is_exact_despite_rounding_and_a_gap(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    stamps = [round(1000 * k / rate) + 400 * (k > 10) for k in range(24)]
    assert float(with_times(tmp_path / f"in{suffix}", stamps).rate) == pytest.approx(float(rate), rel=0.0015)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_new_frames_have_exact_times_after_a_rounded_input(tmp_path: Path, suffix: str) -> None:
    rate = Fraction(30000, 1001)
    video = open_video(make(tmp_path / "in.mkv", grays(12), ClipSpec(rate=rate)))
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    gaps = np.diff([float(time) for time in open_video(tmp_path / f"out{suffix}").times[12:]])
    assert gaps == pytest.approx(float(1 / rate), abs=1e-6 if suffix == ".mp4" else 1e-3)


def test_matroska_declares_the_shortest_gap(tmp_path: Path) -> None:
    times = [40 * k for k in range(12)] + [480 + 120 * k for k in range(14)]
    write_extension(with_times(tmp_path / "in.mp4", times), tmp_path / "out.mkv", NEW)
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert file.streams.video[0].average_rate == 25  # FFmpeg takes no frames in faster than that


def test_without_a_common_gap_the_rate_is_the_average(tmp_path: Path) -> None:
    assert with_times(tmp_path / "in.mp4", [0, 100, 300, 600, 1000]).rate == 4


def test_one_long_frame_alone_does_not_set_the_rate(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.mp4", grays(1), ClipSpec("mpeg4"))
    video = open_video(remux(plain, tmp_path / "in.mp4", last=Fraction(3)))
    assert video.rate >= 5
    assert video.end == 3


@pytest.mark.parametrize("gap", [2002, 40_000_000])
def test_very_long_videos_are_rejected_or_timed_exactly(tmp_path: Path, gap: int) -> None:
    stamps = [0, 1000 * gap]
    if gap < 360_000:
        assert with_times(tmp_path / "in.mkv", stamps).rate == Fraction(1, gap)
    else:
        with pytest.raises(InputError, match="hours"):
            with_times(tmp_path / "in.mkv", stamps)


@pytest.mark.parametrize("rate", [1000, 90_000])
def test_frame_rates_that_containers_cannot_hold_are_rejected(tmp_path: Path, rate: int) -> None:
    video = open_video(make(tmp_path / "in.mp4", grays(12), ClipSpec(rate=Fraction(rate))))
    if rate == 1000:
        write_extension(video, tmp_path / "out.mp4", NEW)
        assert open_video(tmp_path / "out.mp4").times == [Fraction(k, rate) for k in range(16)]
    else:
        with pytest.raises(InputError, match="frames per second"):
            check_extension(video, tmp_path / "out.mp4")


def test_a_gif_counts_hundredths_of_a_second(tmp_path: Path) -> None:
    video = with_times(tmp_path / "in.mkv", [0, 100, 104, 200, 300])
    write_extension(video, tmp_path / "out.gif", NEW)
    times = [0, 10, 11, 20, 30, 40, 50, 60, 70]
    assert open_video(tmp_path / "out.gif").times == [Fraction(time, 100) for time in times]
    fast = open_video(make(tmp_path / "fast.mp4", grays(12), ClipSpec(rate=Fraction(120))))
    with pytest.raises(InputError, match="120 frames per second, more than 100"):
        check_extension(fast, tmp_path / "out.gif")


# The start


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("shift", [Fraction(2), Fraction(100)])
def test_start_offsets_are_removed_and_audio_stays_in_sync(
    tmp_path: Path, kind: str, suffix: str, shift: Fraction
) -> None:
    plain = make(tmp_path / f"plain.{kind}", grays(12), ClipSpec("mpeg4", audio="mp2"))
    video = open_video(remux(plain, tmp_path / f"in.{kind}", shift=shift))
    before = start_times(video.path)
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    after = start_times(tmp_path / f"out{suffix}")
    assert min(before.values()) >= shift - Fraction(1, 50)
    assert min(after.values()) == 0
    gap = before["audio"] - before["video"]
    assert float(after["audio"] - after["video"]) == pytest.approx(float(gap), abs=0.002)
    assert open_video(tmp_path / f"out{suffix}").frames == 16


@pytest.mark.parametrize("milliseconds", [10, 30])
def test_audio_that_starts_less_than_a_frame_earlier_stays_in_sync(tmp_path: Path, milliseconds: int) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    pan = [np.roll(scene, k * k, 1) for k in range(12)]  # for which x264 uses single B-frames
    plain = make(tmp_path / "plain.mp4", pan, ClipSpec("mpeg4", Fraction(25), audio="mp2"))
    delay = Fraction(milliseconds, 1000)
    write_extension(open_video(remux(plain, tmp_path / "in.mp4", video_shift=delay)), tmp_path / "out.mp4", NEW)
    starts = start_times(tmp_path / "out.mp4")
    assert float(starts["video"] - starts["audio"]) == pytest.approx(float(delay), abs=0.001)


# Files that cannot seek


def test_leading_frames_without_timestamps_are_timed(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.mkv", grays(20), ClipSpec("mpeg4", audio="mp2"))
    video = open_video(remux(plain, tmp_path / "in.mkv", shift=Fraction(-1)))
    frames = list(FrameReader(video))
    assert video.frames == len(frames) == 20
    assert [time for _, time in frames] == video.times == [TENTH * (k - 10) for k in range(20)]
    write_extension(video, tmp_path / "out.mp4", NEW)
    times = open_video(tmp_path / "out.mp4").times
    assert [time - times[0] for time in times] == [TENTH * k for k in range(24)]


def test_preroll_before_missing_timestamps_is_ignored(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.mkv", grays(20), ClipSpec("mpeg4", audio="libopus"))
    video = open_video(remux(plain, tmp_path / "in.mkv", shift=Fraction(-1)))
    write_extension(video, tmp_path / "out.mkv", NEW)
    assert min(start_times(tmp_path / "out.mkv").values()) == 0


def test_a_failed_seek_reads_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(make(tmp_path / "in.mkv", grays(20)))
    expected = read_last_frames(video, Fraction(10), 4)
    pictures = FrameReader.decode

    def fail_to_seek(self: FrameReader, since: Fraction | None = None) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        if since is not None:
            raise av.error.PermissionError(1, "Operation not permitted")
        yield from pictures(self)

    monkeypatch.setattr(FrameReader, "decode", fail_to_seek)
    assert np.array_equal(read_last_frames(video, Fraction(10), 4), expected)
