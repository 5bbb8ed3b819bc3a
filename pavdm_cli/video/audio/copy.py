"""The sound of a video, carried over packet by packet, and silence after it; converted where it cannot be held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import Container, InputContainer, OutputContainer

from pavdm_cli.errors import OutputError
from pavdm_cli.video.audio.adts import is_adts, is_complete, specific_config, without_header
from pavdm_cli.video.audio.silence import Silence, check_silence
from pavdm_cli.video.audio.timing import (
    PREROLL,
    AudioPacket,
    SampleClock,
    end_padding,
    samples_per_packet,
    set_end_padding,
    start,
    start_padding,
    template_with_codec_delay,
)
from pavdm_cli.video.audio.transcode import Converter, storage
from pavdm_cli.video.io.info import VideoInfo
from pavdm_cli.video.io.input import Limits, open_input
from pavdm_cli.video.write.extras import describe

Audio = Literal["keep", "silence", "drop"]


def readable(source: InputContainer) -> list[AudioStream]:
    """The sound streams of a file that say what they are: a broken or unknown one is left out."""
    known = [one for one in source.streams.audio if one.codec_context is not None]
    return [one for one in known if one.codec_context.sample_rate and one.codec_context.layout.nb_channels]


def starts(path: Path, limits: Limits, streams: Sequence[AudioStream]) -> list[Fraction]:
    """Seconds at which streams begin to be heard: what an encoder put before the sound is not counted."""
    begins = {one.index: begin for one in streams if (begin := _begin(one)) is not None}
    with open_input(path, limits) as source:
        waiting = set(begins)
        for packet in _packets(source, [one for one in readable(source) if one.index in waiting]) if waiting else ():
            index, time = packet.stream.index, start(packet)
            if (
                index in waiting and time is not None
            ):  # FFmpeg counts the lead-in where it derives the first time itself
                heard = time + Fraction(start_padding(packet), packet.stream.codec_context.sample_rate)
                begins[index] = max(begins[index], heard) if start_padding(packet) else begins[index]
            waiting.discard(index)
            if not waiting:
                break
    return list(begins.values())


def check_audio(streams: Sequence[AudioStream], suffix: str, audio: Audio) -> None:
    """Refuse sound that the container cannot hold, or that silence cannot follow. Raises: OutputError, UsageError."""
    if audio == "drop":
        return
    for stream in streams:
        if storage(stream, suffix) is None:
            name = stream.codec_context.codec.canonical_name
            other = "use -o x.mkv, or --audio drop" if storage(stream, ".mkv") is not None else "use --audio drop"
            raise OutputError(f"{suffix} files cannot hold {name} sound", other)
    if audio == "silence":
        check_silence([one for one in streams if not storage(one, suffix)])


def audio_notes(streams: Sequence[AudioStream], suffix: str) -> list[str]:
    """What is stored as another codec, one line each."""
    stored = [(one.codec_context.codec.canonical_name, storage(one, suffix)) for one in streams]
    return [f"{name} sound stored as {other}, sample for sample" for name, other in dict.fromkeys(stored) if other]


def suffix_for_audio(video: VideoInfo, audio: Audio, suffixes: Sequence[str]) -> str:
    """The first kind of file that holds a video's sound as it is, else the first that stores it, else the first."""
    if audio == "drop" or not video.audio:
        return suffixes[0]
    with open_input(video.path, video.limits) as source:
        stored = {suffix: [storage(one, suffix) for one in readable(source)] for suffix in suffixes}
    carried = [suffix for suffix in suffixes if not any(one != "" for one in stored[suffix])]
    return next(iter([*carried, *(suffix for suffix in suffixes if None not in stored[suffix]), *suffixes]))


class AudioTrack:
    """One sound stream on its way from a file to another, `offset` seconds earlier."""

    def __init__(self, old: AudioStream, offset: Fraction, silence: bool) -> None:
        self.old = old
        self.end = Fraction(0)
        self._offset = offset
        self._clock = SampleClock(old)
        self._rate = old.codec_context.sample_rate
        self._follow_silence = silence
        self._silence: Silence | None = None
        self._converter: Converter | None = None
        self._matroska = self._adts = False

    def attach(self, container: OutputContainer, suffix: str, first: AudioPacket | None) -> None:
        """Add the stream to a new file; `first` is the first packet of it that will be carried over."""
        self._matroska = suffix in (".mkv", ".webm")
        encoder = storage(self.old, suffix)
        assert encoder is not None, "checked before any work"
        if encoder:
            self._converter = Converter(self.old, encoder, container)
            self.new = self._converter.stream
        else:
            self.new = container.add_stream_from_template(self._template(first))
            self._adts = is_adts(self.old, first)
            if first is not None and self._adts:
                self.new.codec_context.extradata = specific_config(first)
            self._silence = Silence(self.old.codec_context) if self._follow_silence else None
        describe(self.old, self.new)

    def carry(self, packet: AudioPacket) -> list[AudioPacket]:
        """What becomes of a packet in the new file; none where it lies too far before the start to matter."""
        time, length = self._clock.place(packet)
        if not is_needed(self.old, time, length):
            return []
        self.end = max(self.end, time + length - self._offset)
        if self._converter:
            return self._address(self._converter.convert(packet, time - self._offset))
        if self._adts:
            if not is_complete(packet):
                return []
            packet = without_header(packet)
        if self._matroska:
            self._mark_end(packet, length)
        packet.time_base = Fraction(1, self._rate)
        packet.pts = packet.dts = round((time - self._offset) * self._rate)
        packet.duration = round(length * self._rate)
        return self._address([packet])

    def silence(self, until: Fraction) -> Iterator[AudioPacket]:
        """Packets of silence from the end of the sound so far."""
        while self._follow_silence and self.end < until:
            if self._converter:
                packets, length = self._converter.silence()
            else:
                packets, length = self._silent_packet()
            self.end += length
            yield from self._address(packets)

    def flush(self) -> list[AudioPacket]:
        """What a conversion holds back at the end."""
        return self._address(self._converter.flush()) if self._converter else []

    def _address(self, packets: list[AudioPacket]) -> list[AudioPacket]:
        for packet in packets:
            packet.stream = self.new
        return packets

    def _template(self, first: AudioPacket | None) -> AudioStream:
        """The stream itself, or one that hides in Matroska what MP4's edit list hides before the start."""
        begin = _begin(self.old)
        if not self._matroska or first is None or begin is None or self.old.codec_context.delay:
            return self.old
        hidden = round((begin - (start(first) or begin)) * self._rate)
        return template_with_codec_delay(self.old, first, hidden) if hidden > 0 else self.old

    def _mark_end(self, packet: AudioPacket, length: Fraction) -> None:
        """Matroska stores what is not heard of a last packet beside it, where MP4 shortens the packet's duration."""
        cut = samples_per_packet(packet, self.old.codec_context) - round(length * self._rate)
        if cut > 0 and not end_padding(packet) and packet.time_base <= Fraction(1, self._rate):
            set_end_padding(packet, cut)

    def _silent_packet(self) -> tuple[list[AudioPacket], Fraction]:
        assert self._silence
        packet, length = self._silence.next()
        packet.time_base = Fraction(1, self._rate)
        packet.pts = packet.dts = round(self.end * self._rate)
        packet.duration = round(length * self._rate)
        return [packet], length


class AudioCopy:
    """All sound streams of a file, given out as far as the picture has come so that a player finds both together."""

    def __init__(self, path: Path, limits: Limits, tracks: Sequence[AudioTrack]) -> None:
        self._tracks = {track.old.index: track for track in tracks}
        self._first = _first_packets(path, limits, tracks) if tracks else {}
        self._packets = self._carried(tracks[0].old.container) if tracks else iter(())
        self._next: AudioPacket | None = None

    def attach(self, container: OutputContainer, suffix: str) -> None:
        """Add the streams to a new file."""
        for index, track in self._tracks.items():
            track.attach(container, suffix, self._first.get(index))
        self._next = next(self._packets, None)

    def until(self, time: Fraction | None) -> list[AudioPacket]:
        """The packets that start before `time` and were not given yet; None is the end of the file."""
        given = []
        while self._next is not None and (time is None or (start(self._next) or 0) < time):
            given.append(self._next)
            self._next = next(self._packets, None)
        return given

    def silence(self, until: Fraction) -> list[AudioPacket]:
        """Packets of silence up to a time, once the file has no more sound."""
        if self._next is not None:
            return []
        return [packet for track in self._tracks.values() for packet in track.silence(until)]

    def flush(self) -> list[AudioPacket]:
        """What conversions hold back at the end."""
        return [packet for track in self._tracks.values() for packet in track.flush()]

    def _carried(self, source: Container) -> Iterator[AudioPacket]:
        assert isinstance(source, InputContainer)
        for packet in _packets(source, [track.old for track in self._tracks.values()]):
            yield from self._tracks[packet.stream.index].carry(packet)


def _packets(source: InputContainer, streams: Sequence[AudioStream]) -> Iterator[AudioPacket]:
    try:
        for packet in source.demux(tuple(streams)):
            if packet.size:
                yield packet
    except av.FFmpegError:  # damaged from here on
        return


def _first_packets(path: Path, limits: Limits, tracks: Sequence[AudioTrack]) -> dict[int, AudioPacket]:
    """For each stream the first packet that will be carried over."""
    found: dict[int, AudioPacket] = {}
    with open_input(path, limits) as source:
        streams = [one for one in readable(source) if any(one.index == track.old.index for track in tracks)]
        clocks = {one.index: SampleClock(one) for one in streams}
        for packet in _packets(source, streams):
            index = packet.stream.index
            if is_needed(packet.stream, *clocks[index].place(packet)):
                found.setdefault(index, packet)
            if len(found) == len(streams):
                break
    return found


def is_needed(stream: AudioStream, time: Fraction, length: Fraction) -> bool:
    """Whether a packet is heard, or so little before the start of its sound that the decoder may need it."""
    begin = _begin(stream)
    return begin is None or time + length > begin - PREROLL


def _begin(stream: AudioStream) -> Fraction | None:
    return None if stream.start_time is None or stream.time_base is None else stream.start_time * stream.time_base
