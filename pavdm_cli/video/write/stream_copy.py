"""Everything of a video that is carried over beside its picture: sound, subtitles, tags, chapters, covers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container import OutputContainer

from pavdm_cli.video.audio.copy import Audio, AudioCopy, AudioTrack, audio_notes, readable, starts
from pavdm_cli.video.io.extras import lost_note, read_extras
from pavdm_cli.video.io.info import VideoInfo, video_stream
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.write.subtitles import Subtitles

Packets: TypeAlias = "list[av.Packet[Any]]"


class StreamCopy:
    """Packets in step with the picture, and what is written once, for one output file; files are open until `close`.

    `offset` is when the earliest of the picture and the sound begins in the input: all is earlier by it in the output.
    """

    def __init__(self, video: VideoInfo, suffix: str, audio: Audio) -> None:
        with ExitStack() as opened:
            source, other = (opened.enter_context(open_input(video.path, video.limits)) for _ in range(2))
            streams = [] if audio == "drop" else readable(source)
            unknown = 0 if audio == "drop" else len(source.streams.audio) - len(streams)
            self.offset = min([video.start, *starts(video.path, video.limits, streams)])
            tracks = [AudioTrack(stream, self.offset, silence=audio == "silence") for stream in streams]
            self._suffix, self._source = suffix, other
            self._sound = AudioCopy(video.path, video.limits, tracks)
            self._extras = read_extras(other, video_stream(other, video.path), video.rate, suffix, self.offset)
            self._subtitles: Subtitles | None = None
            self.notes = [
                *audio_notes(streams, suffix),
                *self._extras.notes,
                *lost_note([*self._extras.lost, *["sound of an unknown kind"] * unknown]),
            ]
            self.close: Callable[[], None] = opened.pop_all().close

    def attach(self, container: OutputContainer) -> None:
        """Add all streams to a new file, which has its picture already."""
        self._sound.attach(container, self._suffix)
        self._subtitles = Subtitles(self._source, self._extras, self._extras.attach(container))

    def until(self, time: Fraction) -> Packets:
        """The packets that start before `time` and were not given yet, and silence up to it."""
        subtitles = self._subtitles.until(time) if self._subtitles else []
        return [*self._sound.until(time), *self._sound.silence(time), *subtitles]

    def rest(self, end: Fraction) -> Packets:
        """All packets that were not given yet, and silence up to `end`."""
        subtitles = self._subtitles.until(None) if self._subtitles else []
        return [*self._sound.until(None), *self._sound.silence(end), *self._sound.flush(), *subtitles]

    def complete(self, path: Path) -> None:
        """Add to the finished file what its muxer cannot."""
        self._extras.finish(path)
