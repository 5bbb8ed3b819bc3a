"""Convert AAC from MPEG-TS framing (an ADTS header in each packet) to what MP4 and Matroska store."""

from __future__ import annotations

from typing import cast

import av
from av.audio.stream import AudioStream

from pavdm_cli.video.audio.timing import AudioPacket


def is_adts(stream: AudioStream, first: AudioPacket | None) -> bool:
    """Whether the stream's packets begin with ADTS headers (ISO/IEC 13818-7)."""
    codec = stream.codec_context
    if codec.codec.canonical_name != "aac" or codec.extradata or first is None:
        return False
    head = bytes(first)[:7]
    return len(head) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def has_adts_length(packet: AudioPacket) -> bool:
    """Whether a packet is as long as its header says; broadcast recordings start and end inside packets."""
    head = bytes(packet)[:7]
    return len(head) == 7 and head[0] == 0xFF and (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 == packet.size


def audio_specific_config(packet: AudioPacket) -> bytes:
    """The AudioSpecificConfig (ISO/IEC 14496-3) equivalent to the packet's ADTS header."""
    header = bytes(packet)[:7]
    profile, rate = header[2] >> 6, header[2] >> 2 & 15
    channels = (header[2] & 1) << 2 | header[3] >> 6
    return ((profile + 1) << 11 | rate << 7 | channels << 3).to_bytes(2)


def strip_adts_header(packet: AudioPacket) -> AudioPacket:
    """A copy without the header, with the same timestamps."""
    data = bytes(packet)
    copy = cast(AudioPacket, av.Packet(data[7 if data[1] & 1 else 9 :]))  # a checksum takes two more bytes
    copy.time_base, copy.pts, copy.dts = packet.time_base, packet.pts, packet.dts
    copy.duration, copy.is_keyframe = packet.duration, True
    return copy
