"""One segment of a growing file: a fresh encoder in a fresh muxer, whose bytes depend on its own frames alone."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
from av.codec.context import ThreadType
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from pavdm_cli.video.write.encode import MUXER_BITEXACT, X264_DETERMINISTIC, EncoderOptions, VideoParams
from pavdm_cli.video.write.mp4_boxes import boxes

ENDLESS = 10**6  # frames between keyframes: a segment starts with one, others come with cuts of the scene
B_FRAME_DELAY = 2  # frames by which x264 decodes before it presents; with more, MP4's muxer may lose a start after zero
ROUNDING = 2  # ticks by which it may seem longer if frames are not a whole number of ticks apart
CLUSTER = b"\x1f\x43\xb6\x75"  # Matroska's element ID
ENCODERS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
# The header comes with the first frames, whose B-frames it must know; one fragment, with its own time.
FRAGMENT_FLAGS = "+frag_custom+delay_moov+default_base_moof+frag_discont+use_metadata_tags"


@dataclass(frozen=True, slots=True)
class SegmentBytes:
    """A segment as it is stored: the header is the same for every segment of a file, which stores it once."""

    header: bytes
    body: bytes


class Segment:
    """Encodes consecutive frames: libx264 in MP4 and Matroska, libvpx-vp9 in WebM."""

    def __init__(self, suffix: str, params: VideoParams, options: EncoderOptions, number: int, comment: str) -> None:
        """number: of the segment in its file, from 0; comment: stored in the header."""
        self.suffix, self._params, self._options = suffix, params, options
        self._buffer = io.BytesIO()
        muxer, muxer_options = _muxer(suffix, number)
        self._container = av.open(self._buffer, "w", format=muxer, options=muxer_options)
        self._container.metadata["comment"] = comment
        self._stream = self._add_stream(self._container)
        self._delay = 0 if options.realtime else decoding_delay(suffix, params)
        self._times: list[int] = []
        self._packets = 0

    @property
    def frames(self) -> int:
        """How many frames were given."""
        return len(self._times)

    def encode(self, frame: av.VideoFrame, time: int) -> None:
        """Append a frame in 4:2:0 with its timestamp in ticks."""
        frame.pict_type = PictureType.NONE  # otherwise the encoder repeats the input's frame types
        frame.duration = 0  # it is in the input's time base
        frame.pts, frame.time_base = time, self._params.tick
        self._times.append(time)
        self._mux(self._stream.encode(frame))

    def close(self) -> SegmentBytes:
        """Flush the encoder."""
        self._mux(self._stream.encode())
        self._container.close()
        return _split(self._buffer.getvalue(), self.suffix)

    def abort(self) -> None:
        """Close the encoder without its last frames."""
        self._container.close()

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        """Decoding times follow the frames' own: x264 takes other delays for the last, short segment."""
        for packet in packets:
            packet.dts = self._times[self._packets] - self._delay
            self._packets += 1
            if self._params.max_rate:  # the nominal duration, which the container stores for the last packet
                packet.duration = round(1 / (self._params.rate * packet.time_base))
            self._container.mux(packet)

    def _add_stream(self, container: OutputContainer) -> VideoStream:
        params = self._params
        codec, options = _codec(self.suffix, self._options, params)
        stream = container.add_stream(codec, rate=params.declared_rate, options=options)
        assert isinstance(stream, VideoStream)
        _configure(stream.codec_context, params, self._options)
        return stream


def decoding_delay(suffix: str, params: VideoParams) -> int:
    """Ticks by which frames are decoded before they are presented, with room for timestamps that are rounded."""
    if suffix == ".webm" or params.variable_frame_rate:
        return 0
    gap = 1 / (params.rate * params.tick)
    return round(B_FRAME_DELAY * gap) + (0 if gap.denominator == 1 else ROUNDING)


def _configure(codec: VideoCodecContext, params: VideoParams, options: EncoderOptions) -> None:
    codec.width, codec.height = params.coded_size
    codec.pix_fmt = "yuv420p"
    codec.time_base = params.tick
    codec.sample_aspect_ratio = params.sample_aspect_ratio
    codec.gop_size = ENDLESS
    codec.thread_count, codec.thread_type = options.threads, ThreadType.FRAME  # x264's slice threads race
    codec.bit_rate = 0  # otherwise libvpx caps the bit rate regardless of the CRF
    space = params.color_space
    codec.color_primaries, codec.color_trc, codec.colorspace = space.primaries, space.transfer, space.matrix
    codec.color_range = ColorRange.MPEG


def _codec(suffix: str, options: EncoderOptions, params: VideoParams) -> tuple[str, dict[str, str]]:
    """Name and options of the encoder."""
    location = {"chroma_sample_location": params.color_space.chroma_location}
    if suffix == ".webm":
        vp9_crf = round(options.crf * 63 / 51)  # libvpx's scale ends at 63
        speed = {"deadline": "realtime", "cpu-used": "8"} if options.realtime else {"deadline": "good", "cpu-used": "4"}
        return ENCODERS[suffix], {"crf": str(vp9_crf), **speed, "row-mt": "1", **location}
    # MP4 derives durations from decoding times: with B-frames, the last one would be wrong. They delay decoding, too,
    # by an edit list, which players of live streams may ignore: WebKitGTK shows frames later.
    b_frames = {"bf": "0"} if params.variable_frame_rate or options.realtime else {}
    x264 = {"rc-lookahead": "40", "x264-params": X264_DETERMINISTIC}
    return ENCODERS[suffix], {"crf": str(options.crf), **x264, **b_frames, **location}


def _muxer(suffix: str, number: int) -> tuple[str, dict[str, str]]:
    """Name and options of the muxer."""
    if suffix == ".mp4":
        options = {"fragment_index": str(number + 1), "avoid_negative_ts": "disabled"}
        return "mp4", {"movflags": FRAGMENT_FLAGS, "fflags": MUXER_BITEXACT, **options}
    return {".mkv": "matroska", ".webm": "webm"}[suffix], {"live": "1", "fflags": MUXER_BITEXACT}


def header_size(data: bytes, suffix: str) -> int:
    """Bytes of the header at the front of a growing file."""
    if suffix != ".mp4":
        return data.index(CLUSTER)
    return next(box.start for box in boxes(data) if box.name == b"moof")


def _split(data: bytes, suffix: str) -> SegmentBytes:
    if suffix != ".mp4":
        start = header_size(data, suffix)
        return SegmentBytes(data[:start], data[start:])
    parts = {True: b"", False: b""}
    for box in boxes(data):
        if box.name in (b"ftyp", b"moov", b"moof", b"mdat"):  # what follows is an index of this segment alone
            parts[box.name in (b"ftyp", b"moov")] += data[box.start : box.start + box.size]
    return SegmentBytes(parts[True], parts[False])
