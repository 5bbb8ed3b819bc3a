"""Copy the audio of a video packet by packet, optionally followed by silence; transcode it where necessary."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import Container, InputContainer, OutputContainer

from pavdm_cli.errors import InputError, OutputError
from pavdm_cli.video.audio.adts import audio_specific_config, has_adts_length, is_adts, strip_adts_header
from pavdm_cli.video.audio.silence import SilenceEncoder, check_silence
from pavdm_cli.video.audio.timing import (
    PREROLL,
    AudioPacket,
    SampleClock,
    end_padding,
    packet_time,
    samples_per_packet,
    set_end_padding,
    start_padding,
    template_with_codec_delay,
)
from pavdm_cli.video.audio.transcode import Transcoder, lossless_encoder
from pavdm_cli.video.io.info import VideoInfo
from pavdm_cli.video.io.input import Limits, open_input
from pavdm_cli.video.write.extras import copy_stream_tags
from pavdm_cli.video.write.remux import MUXERS

AudioMode = Literal["keep", "silence", "drop"]
CHECKED_PACKETS = 32  # times the number of streams


def supported_streams(source: InputContainer) -> list[AudioStream]:
    """The audio streams with known codec, sample rate and channels."""
    streams = [stream for stream in source.streams.audio if stream.codec_context is not None]
    return [s for s in streams if s.codec_context.sample_rate and s.codec_context.layout.nb_channels]


def audio_starts(path: Path, limits: Limits, streams: Sequence[AudioStream]) -> list[Fraction]:
    """Seconds at which the streams become audible, after the encoder's start padding."""
    starts = {stream.index: start for stream in streams if (start := _stream_start(stream)) is not None}
    with open_input(path, limits) as source:
        pending = set(starts)
        for packet in _demux(source, [s for s in supported_streams(source) if s.index in pending]) if pending else ():
            index, time, padding = packet.stream.index, packet_time(packet), start_padding(packet)
            if index in pending and time is not None and padding:  # FFmpeg's start time may include the padding
                audible = time + Fraction(padding, packet.stream.codec_context.sample_rate)
                starts[index] = max(starts[index], audible)
            pending.discard(index)
            if not pending:
                break
    return list(starts.values())


def check_audio(streams: Sequence[AudioStream], suffix: str, mode: AudioMode) -> None:
    """Reject audio that the container cannot hold or that silence cannot follow. Raises: OutputError, UsageError."""
    if mode == "drop":
        return
    for stream in streams:
        if lossless_encoder(stream, suffix) is None:
            name = stream.codec_context.codec.canonical_name
            mkv_works = lossless_encoder(stream, ".mkv") is not None
            hint = "use -o x.mkv, or --audio drop" if mkv_works else "use --audio drop"
            raise OutputError(f"{suffix} files cannot hold {name} audio", hint)
    if mode == "silence":
        check_silence([stream for stream in streams if not lossless_encoder(stream, suffix)])


def check_packets(path: Path, limits: Limits, suffix: str, mode: AudioMode) -> None:
    """Reject audio whose header or first packets the muxer rejects, as after damage. Raises: InputError."""
    if mode == "drop" or _can_mux_packets(path, limits, suffix, mode):
        return
    mkv_works = suffix == ".mp4" and _can_mux_packets(path, limits, ".mkv", mode)
    hint = "use -o x.mkv, or --audio drop" if mkv_works else "use --audio drop"
    raise InputError(f"the audio of {path} is damaged and cannot be copied to a {suffix} file", hint)


def _can_mux_packets(path: Path, limits: Limits, suffix: str, mode: AudioMode) -> bool:
    try:
        with open_input(path, limits) as source, closing(av.open(io.BytesIO(), "w", format=MUXERS[suffix])) as file:
            streams = supported_streams(source)
            if any(lossless_encoder(stream, suffix) is None for stream in streams):
                return False
            tracks = [AudioTrack(stream, Fraction(0), append_silence=mode == "silence") for stream in streams]
            copy = AudioCopy(path, limits, tracks)
            copy.add_streams(file, suffix)
            file.mux(copy.first_packets(CHECKED_PACKETS * len(tracks)))
            file.mux(copy.flush())
    except (av.FFmpegError, ValueError):
        return False
    return True


def audio_notes(streams: Sequence[AudioStream], suffix: str) -> list[str]:
    """A note for each codec that is transcoded."""
    encoders = [(s.codec_context.codec.canonical_name, lossless_encoder(s, suffix)) for s in streams]
    return [f"{name} audio stored losslessly as {encoder}" for name, encoder in dict.fromkeys(encoders) if encoder]


def suffix_for_audio(video: VideoInfo, mode: AudioMode, suffixes: Sequence[str]) -> str:
    """The first suffix whose container can copy the video's audio, else one that can transcode it, else the first."""
    if mode == "drop" or not video.audio_codecs:
        return suffixes[0]
    with open_input(video.path, video.limits) as source:
        encoders = {suffix: [lossless_encoder(s, suffix) for s in supported_streams(source)] for suffix in suffixes}
    copying = [suffix for suffix in suffixes if not any(encoder != "" for encoder in encoders[suffix])]
    transcoding = [suffix for suffix in suffixes if None not in encoders[suffix]]
    return [*copying, *transcoding, *suffixes][0]


class AudioTrack:
    """One audio stream that is copied or transcoded to another file, `offset` seconds earlier."""

    def __init__(self, source: AudioStream, offset: Fraction, append_silence: bool) -> None:
        self.source = source
        self.end = Fraction(0)
        self._offset = offset
        self._is_audible = False  # what was copied so far
        self._clock = SampleClock(source)
        self._rate = source.codec_context.sample_rate
        self._append_silence = append_silence
        self._silence: SilenceEncoder | None = None
        self._transcoder: Transcoder | None = None
        self._matroska = self._adts = False

    def add_stream(self, container: OutputContainer, suffix: str, first: AudioPacket | None) -> None:
        """Add the stream to a new file; `first` is the first packet that will be copied."""
        self._matroska = suffix in (".mkv", ".webm")
        encoder = lossless_encoder(self.source, suffix)
        assert encoder is not None, "checked by check_audio"
        if encoder:
            self._transcoder = Transcoder(self.source, encoder, container)
            self.target = self._transcoder.stream
        else:
            self.target = container.add_stream_from_template(self._template(first))
            self._adts = is_adts(self.source, first)
            if first is not None and self._adts:
                self.target.codec_context.extradata = audio_specific_config(first)
            self._silence = SilenceEncoder(self.source.codec_context) if self._append_silence else None
        copy_stream_tags(self.source, self.target)

    def copy(self, packet: AudioPacket) -> list[AudioPacket]:
        """The output packets for an input packet; none if it lies too far before the start to matter."""
        if packet.is_discard and self._is_audible:  # between two edits of MP4
            return []
        time, duration = self._clock.time_packet(packet)
        if not is_needed(self.source, time, duration):
            return []
        self._is_audible |= not packet.is_discard
        self.end = max(self.end, time + duration - self._offset)
        if self._transcoder:
            return self._assign_stream(self._transcoder.transcode(packet, time - self._offset))
        if self._adts:
            if not has_adts_length(packet):
                return []
            packet = strip_adts_header(packet)
        if self._matroska:
            self._mark_end_padding(packet, duration)
        self._set_times(packet, time - self._offset, duration)
        return self._assign_stream([packet])

    def silence(self, until: Fraction) -> Iterator[AudioPacket]:
        """Packets of silence from the current end of the track."""
        while self._append_silence and self.end < until:
            packets, duration = self._transcoder.silence() if self._transcoder else self._silent_packet()
            self.end += duration
            yield from self._assign_stream(packets)

    def flush(self) -> list[AudioPacket]:
        """The packets that a transcoder still buffers."""
        return self._assign_stream(self._transcoder.flush()) if self._transcoder else []

    def _assign_stream(self, packets: list[AudioPacket]) -> list[AudioPacket]:
        for packet in packets:
            packet.stream = self.target
        return packets

    def _set_times(self, packet: AudioPacket, time: Fraction, duration: Fraction) -> None:
        packet.time_base = Fraction(1, self._rate)
        packet.pts = packet.dts = round(time * self._rate)
        packet.duration = round(duration * self._rate)

    def _template(self, first: AudioPacket | None) -> AudioStream:
        """The source stream, or one whose codec delay replaces what MP4's edit list skips at the start."""
        start = _stream_start(self.source)
        if not self._matroska or first is None or start is None or self.source.codec_context.delay:
            return self.source
        delay = round((start - (packet_time(first) or start)) * self._rate)
        return template_with_codec_delay(self.source, first, delay) if delay > 0 else self.source

    def _mark_end_padding(self, packet: AudioPacket, duration: Fraction) -> None:
        """Matroska stores the padding of the last packet as side data, where MP4 shortens its duration."""
        padding = samples_per_packet(packet, self.source.codec_context) - round(duration * self._rate)
        if padding > 0 and not end_padding(packet) and packet.time_base <= Fraction(1, self._rate):
            set_end_padding(packet, padding)

    def _silent_packet(self) -> tuple[list[AudioPacket], Fraction]:
        assert self._silence
        packet, duration = self._silence.next()
        self._set_times(packet, self.end, duration)
        return [packet], duration


class AudioCopy:
    """All audio tracks of a file, delivered in step with the video so that the output is interleaved."""

    def __init__(self, path: Path, limits: Limits, tracks: Sequence[AudioTrack]) -> None:
        self._tracks = {track.source.index: track for track in tracks}
        self._first = _first_packets(path, limits, tracks) if tracks else {}
        self._packets = self._copy_packets(tracks[0].source.container) if tracks else iter(())
        self._next: AudioPacket | None = None

    def add_streams(self, container: OutputContainer, suffix: str) -> None:
        """Add the streams to a new file."""
        for index, track in self._tracks.items():
            track.add_stream(container, suffix, self._first.get(index))
        self._next = next(self._packets, None)

    def packets_until(self, time: Fraction | None) -> list[AudioPacket]:
        """The next packets, up to those that start before `time`; None is the end of the file."""
        packets = []
        while self._next is not None and (time is None or (packet_time(self._next) or 0) < time):
            packets.append(self._next)
            self._next = next(self._packets, None)
        return packets

    def first_packets(self, count: int) -> list[AudioPacket]:
        """The next packets, at most `count` of them."""
        return [packet for packet in (self._next, *islice(self._packets, count - 1)) if packet]

    def silence(self, until: Fraction) -> list[AudioPacket]:
        """Packets of silence, once all of the input's audio has been copied."""
        if self._next is not None:
            return []
        return [packet for track in self._tracks.values() for packet in track.silence(until)]

    def flush(self) -> list[AudioPacket]:
        """The packets that transcoders still buffer."""
        return [packet for track in self._tracks.values() for packet in track.flush()]

    def _copy_packets(self, source: Container) -> Iterator[AudioPacket]:
        assert isinstance(source, InputContainer)
        for packet in _demux(source, [track.source for track in self._tracks.values()]):
            yield from self._tracks[packet.stream.index].copy(packet)


def _demux(source: InputContainer, streams: Sequence[AudioStream]) -> Iterator[AudioPacket]:
    try:
        for packet in source.demux(tuple(streams)):
            if packet.size:
                yield packet
    except av.FFmpegError:  # the rest is damaged
        return


def _first_packets(path: Path, limits: Limits, tracks: Sequence[AudioTrack]) -> dict[int, AudioPacket]:
    """The first packet of each stream that will be copied."""
    first: dict[int, AudioPacket] = {}
    with open_input(path, limits) as source:
        indices = {track.source.index for track in tracks}
        streams = [stream for stream in supported_streams(source) if stream.index in indices]
        clocks = {stream.index: SampleClock(stream) for stream in streams}
        for packet in _demux(source, streams):
            index = packet.stream.index
            if is_needed(packet.stream, *clocks[index].time_packet(packet)):
                first.setdefault(index, packet)
            if len(first) == len(streams):
                break
    return first


def is_needed(stream: AudioStream, time: Fraction, duration: Fraction) -> bool:
    """Whether a packet is audible, or part of the pre-roll that the decoder may need."""
    start = _stream_start(stream)
    return start is None or time + duration > start - PREROLL


def _stream_start(stream: AudioStream) -> Fraction | None:
    return None if stream.start_time is None or stream.time_base is None else stream.start_time * stream.time_base
