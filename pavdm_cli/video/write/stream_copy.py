"""Copy everything but the video stream from an input: audio, subtitles, tags, chapters, covers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container import OutputContainer

from pavdm_cli.video.audio.copy import AudioCopy, AudioMode, AudioTrack, audio_notes, audio_starts, supported_streams
from pavdm_cli.video.io.info import VideoInfo, video_stream
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.write.read_extras import dropped_note, read_extras
from pavdm_cli.video.write.subtitles import Subtitles

Packets: TypeAlias = "list[av.Packet[Any]]"


class StreamCopy:
    """Delivers packets in step with the video, for one output file; call `close` when done.

    `offset` is when the first video or audio of the input starts; all times in the output are earlier by it.
    """

    def __init__(self, video: VideoInfo, suffix: str, audio: AudioMode) -> None:
        with ExitStack() as stack:
            audio_source, source = (stack.enter_context(open_input(video.path, video.limits)) for _ in range(2))
            streams = [] if audio == "drop" else supported_streams(audio_source)
            num_unsupported = 0 if audio == "drop" else len(audio_source.streams.audio) - len(streams)
            self.offset = min([video.start, *audio_starts(video.path, video.limits, streams)])
            tracks = [AudioTrack(stream, self.offset, append_silence=audio == "silence") for stream in streams]
            self._suffix, self._source = suffix, source
            self._audio = AudioCopy(video.path, video.limits, tracks)
            self._extras = read_extras(source, video_stream(source, video.path), video.rate, suffix, self.offset)
            self._subtitles: Subtitles | None = None
            self.notes = [
                *audio_notes(streams, suffix),
                *self._extras.notes,
                *dropped_note([*self._extras.dropped, *["audio of unknown codec"] * num_unsupported]),
            ]
            self.close: Callable[[], None] = stack.pop_all().close

    def add_streams(self, container: OutputContainer) -> None:
        """Add all streams to a new file, after its video stream."""
        self._audio.add_streams(container, self._suffix)
        self._subtitles = Subtitles(self._source, self._extras, self._extras.add_to(container))

    def packets_until(self, time: Fraction) -> Packets:
        """The next packets, up to those that start before `time`, and silence until then."""
        subtitles = self._subtitles.packets_until(time) if self._subtitles else []
        return [*self._audio.packets_until(time), *self._audio.silence(time), *subtitles]

    def flush(self, end: Fraction) -> Packets:
        """All remaining packets, and silence until `end`."""
        subtitles = self._subtitles.packets_until(None) if self._subtitles else []
        return [*self._audio.packets_until(None), *self._audio.silence(end), *self._audio.flush(), *subtitles]

    def finish_file(self, path: Path) -> None:
        """Add what the muxer cannot write to the closed file."""
        self._extras.finish_file(path)
