"""Frame rate, timestamps and true duration of a video stream, from the timestamps of its packets."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

STANDARD_RATES = (
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60, 120)),
    *(Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
)
MIN_STILL_RATE = 5  # fps that a file of one frame may declare; a lower rate is the length of that frame


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """Timestamps of the packets of a stream, in ticks of its time base."""

    timestamps: list[int]  # of presentation, sorted
    untimed: int  # packets without a timestamp before the first of `timestamps`
    last_duration: int  # of the last presented frame; 0 if unknown
    repeated_until: int  # end of the empty packets by which AVI repeats a frame


def scan_packets(
    packets: Iterable[Packet[VideoStream]], decode_order: bool, max_frames: int, first: int | None = None
) -> PacketTimes:
    """Collect timestamps from `first` on; stops soon after `max_frames`.

    decode_order: frames are presented in the order of their packets, as in AVI.
    """
    durations: dict[int, int] = {}  # by timestamp
    earliest, without_time, num_untimed, repeated_until = None, 0, 0, 0
    for packet in packets:
        timestamp = packet.dts if decode_order or packet.pts is None else packet.pts
        if timestamp is not None and first is not None and timestamp < first:
            continue
        if not packet.size:
            repeated_until = repeated_until if timestamp is None else timestamp + 1
        elif timestamp is None:
            without_time += not packet.is_discard
        elif not packet.is_discard:
            durations[timestamp] = packet.duration or 0
            if earliest is None or timestamp < earliest:
                earliest, num_untimed = timestamp, without_time
        if len(durations) + without_time > max_frames:
            break
    timestamps = sorted(durations)
    if not timestamps:  # a raw stream
        return PacketTimes(list(range(max(without_time, 1))), 0, 1, 0)
    return PacketTimes(timestamps, num_untimed, durations[timestamps[-1]], repeated_until)


def frame_rate(timestamps: Sequence[int], tick: Fraction, stream: VideoStream) -> Fraction:
    """The rate of the most common gap between frames, or the average where no gap dominates.

    Prefers a declared or standard rate if rounding of the timestamps explains the difference.
    """
    declared_rates = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    gaps = [after - before for before, after in itertools.pairwise(timestamps)]
    if not gaps:
        return next((rate for rate in declared_rates if rate >= MIN_STILL_RATE), Fraction(25))
    low, high = _most_common(gaps)
    common = [low <= gap <= high for gap in gaps]
    count, runs = sum(common), sum(common[i] and not (i and common[i - 1]) for i in range(len(common)))
    total = sum(itertools.compress(gaps, common)) * tick
    exact = [rate for rate in declared_rates if abs(count / rate - total) < tick / 100]
    round_declared = [rate for rate in declared_rates if rate in STANDARD_RATES or rate.denominator == 1]
    nearest_standard = sorted(STANDARD_RATES, key=lambda rate: abs(count / rate - total))
    for rate in (*exact, *round_declared, *nearest_standard, *declared_rates):
        if abs(count / rate - total) <= max(runs * tick, total / 2000):  # both ends of each run are rounded
            return rate
    rate = count / total
    return rate.limit_denominator(1001) if rate > 1 else 1 / total.limit_denominator(10**6) * count


def _most_common(gaps: Sequence[int]) -> tuple[int, int]:
    """The narrow range that contains most gaps, or the full range if no narrow one clearly dominates."""
    sorted_gaps = sorted(gaps)
    ranges = {
        gap: (bisect_left(sorted_gaps, gap), bisect_right(sorted_gaps, gap + _jitter(gap)))
        for gap in Counter(sorted_gaps)
    }
    start, (first, last) = max(ranges.items(), key=lambda item: item[1][1] - item[1][0])
    other_counts = (high - low for low, high in ranges.values() if high <= first or low >= last)
    if 10 * (last - first) >= 11 * max(other_counts, default=0):
        return start, start + _jitter(start)
    return sorted_gaps[0], sorted_gaps[-1]


def _jitter(gap: int) -> int:
    """How much gaps of one rate differ: one tick of rounding, or 8 % in cameras and files that were rounded twice."""
    return max(1, gap // 12) if gap >= 3 else 0


def last_frame_duration(times: PacketTimes, rate: Fraction, stream: VideoStream, source: InputContainer) -> Fraction:
    """Seconds of the last frame: its packet's duration, corrected by the track's, and at least half a frame."""
    tick, gap = stream.time_base or Fraction(1, 1000), 1 / rate
    last = times.timestamps[-1] * tick
    duration = max(times.last_duration, times.repeated_until - times.timestamps[-1]) * tick
    end = _track_end(stream, source, last, len(times.timestamps))
    if end is not None and end > last and abs(end - last - duration) > gap / 2:
        duration = end - last
    return duration if duration >= gap / 2 else gap


def _track_end(stream: VideoStream, source: InputContainer, last: Fraction, num_frames: int) -> Fraction | None:
    """The end of the track by the container: MP4's edit list, or Matroska's statistics tags; None if unknown."""
    if source.format.name.startswith("mov") and stream.duration and stream.time_base:
        if (stream.start_time or 0) > 0 and stream.frames > num_frames:
            return None  # the edit list starts late and leaves out frames: FFmpeg's duration may include either
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    if source.format.name.startswith("matroska"):
        tags = {key.upper(): value for key, value in stream.metadata.items()}
        duration = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", tags.get("DURATION", ""))
        end = Fraction(0)
        for part in duration.groups() if duration else ():
            end = end * 60 + Fraction(part)
        return end if end > last else None
    return None
