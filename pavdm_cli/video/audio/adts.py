"""AAC as MPEG-TS carries it, each packet with a header of its own, turned to what MP4 and Matroska hold."""

from __future__ import annotations

from typing import cast

import av
from av.audio.stream import AudioStream

from pavdm_cli.video.audio.timing import AudioPacket


def is_adts(stream: AudioStream, first: AudioPacket | None) -> bool:
    """Whether packets of a stream begin with ADTS headers (ISO/IEC 13818-7)."""
    codec = stream.codec_context
    if codec.codec.canonical_name != "aac" or codec.extradata or first is None:
        return False
    head = bytes(first)[:7]
    return len(head) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def is_complete(packet: AudioPacket) -> bool:
    """Whether a packet is as long as its header says; recordings are cut anywhere."""
    head = bytes(packet)[:7]
    return len(head) == 7 and head[0] == 0xFF and (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 == packet.size


def specific_config(packet: AudioPacket) -> bytes:
    """The AudioSpecificConfig (ISO/IEC 14496-3) that says once what an ADTS header says in each packet."""
    header = bytes(packet)[:7]
    profile, rate = header[2] >> 6, header[2] >> 2 & 15
    channels = (header[2] & 1) << 2 | header[3] >> 6
    return ((profile + 1) << 11 | rate << 7 | channels << 3).to_bytes(2)


def without_header(packet: AudioPacket) -> AudioPacket:
    """A copy of a packet that lacks its ADTS header; times are those of the packet."""
    data = bytes(packet)
    bare = cast(AudioPacket, av.Packet(data[7 if data[1] & 1 else 9 :]))  # with a checksum, two bytes more
    bare.time_base, bare.pts, bare.dts, bare.duration = packet.time_base, packet.pts, packet.dts, packet.duration
    bare.is_keyframe = True
    return bare
