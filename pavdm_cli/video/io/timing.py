"""When a video's frames are shown, its frame rate and its true end, from the timestamps of its packets."""

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
MIN_STILL_RATE = 5  # frames per second that the only frame of a file may claim; a slower rate is its length


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """What the packets of a stream say, in ticks of its time base."""

    stamps: list[int]  # when frames are shown, rising
    unknown: int  # frames before the first of `stamps` whose timestamps are missing
    last_duration: int  # of the frame shown last; 0 if it is not said
    end: int  # of the empty packets in AVI that repeat a frame


def scan(
    packets: Iterable[Packet[VideoStream]], decode_order: bool, limit: int, first: int | None = None
) -> PacketTimes:
    """The times of all packets that are shown, from `first` on and up to some more than `limit`.

    decode_order: frames are shown in the order of their packets, as in AVI.
    """
    shown: dict[int, int] = {}  # stamp -> duration
    earliest, unset, unknown, end = None, 0, 0, 0
    for packet in packets:
        stamp = packet.dts if decode_order or packet.pts is None else packet.pts
        if stamp is not None and first is not None and stamp < first:
            continue
        if not packet.size:
            end = end if stamp is None else stamp + 1
        elif stamp is None:
            unset += not packet.is_discard
        elif not packet.is_discard:
            shown[stamp] = packet.duration or 0
            if earliest is None or stamp < earliest:
                earliest, unknown = stamp, unset
        if len(shown) + unset > limit:
            break
    stamps = sorted(shown)
    if not stamps:  # a raw stream without any time
        return PacketTimes(list(range(max(unset, 1))), 0, 1, 0)
    return PacketTimes(stamps, unknown, shown[stamps[-1]], end)


def frame_rate(stamps: Sequence[int], tick: Fraction, stream: VideoStream) -> Fraction:
    """Frames per second by the most common gap between frames; the average where no gap stands out.

    The rate that the file names is taken, or a standard one, where the rounding of timestamps explains the difference.
    """
    declared = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    if not gaps:
        return next((rate for rate in declared if rate >= MIN_STILL_RATE), Fraction(25))
    low, high = _most_common(gaps)
    usual = [low <= gap <= high for gap in gaps]
    count, runs = sum(usual), sum(usual[at] and not (at and usual[at - 1]) for at in range(len(usual)))
    total = sum(gap for gap, counted in zip(gaps, usual, strict=True) if counted) * tick
    exact = [rate for rate in declared if abs(count / rate - total) < tick / 100]
    usual_named = [rate for rate in declared if rate in STANDARD_RATES or rate.denominator == 1]
    standard = sorted(STANDARD_RATES, key=lambda rate: abs(count / rate - total))
    for rate in (*exact, *usual_named, *standard, *declared):
        if abs(count / rate - total) <= max(runs * tick, total / 2000):  # each run of gaps is rounded at its ends
            return rate
    rate = count / total
    return rate.limit_denominator(1001) if rate > 1 else 1 / total.limit_denominator(10**6) * count


def _most_common(gaps: Sequence[int]) -> tuple[int, int]:
    """The narrow range that most gaps lie in, or the range of all where no such range has clearly more than others."""
    ordered = sorted(gaps)
    ranges = {gap: (bisect_left(ordered, gap), bisect_right(ordered, gap + _jitter(gap))) for gap in Counter(ordered)}
    start, (first, last) = max(ranges.items(), key=lambda item: item[1][1] - item[1][0])
    others = (high - low for low, high in ranges.values() if high <= first or low >= last)
    if 10 * (last - first) >= 11 * max(others, default=0):
        return start, start + _jitter(start)
    return ordered[0], ordered[-1]


def _jitter(gap: int) -> int:
    """How far gaps of one rate lie apart: a tick by rounding, 8 % by earlier rounding or in cameras that vary."""
    return max(1, gap // 12) if gap >= 3 else 0


def last_frame_duration(times: PacketTimes, rate: Fraction, stream: VideoStream, source: InputContainer) -> Fraction:
    """Seconds that the last frame is shown: by its packet, corrected by the length of the track, never next to none."""
    tick, gap = stream.time_base or Fraction(1, 1000), 1 / rate
    last = times.stamps[-1] * tick
    hold = max(times.last_duration, times.end - times.stamps[-1]) * tick
    end = _track_end(stream, source, last)
    if end is not None and end > last and abs(end - last - hold) > gap / 2:
        hold = end - last
    return hold if hold >= gap / 2 else gap


def _track_end(stream: VideoStream, source: InputContainer, last: Fraction) -> Fraction | None:
    """Where the container says that the track ends: MP4's edit list, Matroska's statistics."""
    if source.format.name.startswith("mov") and stream.duration and stream.time_base:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    if source.format.name.startswith("matroska"):
        tags = {key.upper(): value for key, value in stream.metadata.items()}
        found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", tags.get("DURATION", ""))
        end = Fraction(0)
        for part in found.groups() if found else ():
            end = end * 60 + Fraction(part)
        return end if end > last else None
    return None
