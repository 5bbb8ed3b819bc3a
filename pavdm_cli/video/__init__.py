"""Video files in and out, as uint8 RGB frames (H, W, 3); knows nothing of models and never imports torch."""

from pavdm_cli.video.io.frames import FrameReader, Tail, frames, shown_at, tail
from pavdm_cli.video.io.info import VideoInfo, open_video
from pavdm_cli.video.io.source import Limits
from pavdm_cli.video.io.still import Still, open_still
from pavdm_cli.video.metadata import Metadata, read_metadata
from pavdm_cli.video.resize import fit, unfit
from pavdm_cli.video.write.encode import Encoding, Frame, Track
from pavdm_cli.video.write.output import (
    SUFFIXES,
    being_written,
    check_output,
    default_name,
    free_name,
    named,
    partial_path,
)
from pavdm_cli.video.write.splice import Extension, Plan, check_splice, splice
from pavdm_cli.video.write.writer import VideoWriter

__all__ = [
    "SUFFIXES",
    "Encoding",
    "Extension",
    "Frame",
    "FrameReader",
    "Limits",
    "Metadata",
    "Plan",
    "Still",
    "Tail",
    "Track",
    "VideoInfo",
    "VideoWriter",
    "being_written",
    "check_output",
    "check_splice",
    "default_name",
    "fit",
    "frames",
    "free_name",
    "named",
    "open_still",
    "open_video",
    "partial_path",
    "read_metadata",
    "shown_at",
    "splice",
    "tail",
    "unfit",
]
