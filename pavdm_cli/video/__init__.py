"""Video files in and out, as uint8 RGB frames (H, W, 3); knows nothing of models and never imports torch."""

from pavdm_cli.video.io.frames import FrameReader, LastFrames, frames, read_frames_at, read_last_frames
from pavdm_cli.video.io.image import StillImage, read_image
from pavdm_cli.video.io.info import VideoInfo, open_video
from pavdm_cli.video.io.input import Limits
from pavdm_cli.video.metadata import Metadata, read_metadata
from pavdm_cli.video.resize import fit, unfit
from pavdm_cli.video.write.encode import EncoderOptions, Frame, Track
from pavdm_cli.video.write.extend import ExtensionOptions, ExtensionWriter, check_extension, splice
from pavdm_cli.video.write.output import (
    SUFFIXES,
    check_output,
    default_output_path,
    is_being_written,
    partial_path,
    resolve_output,
    unused_path,
)
from pavdm_cli.video.write.writer import VideoWriter

__all__ = [
    "SUFFIXES",
    "EncoderOptions",
    "ExtensionOptions",
    "ExtensionWriter",
    "Frame",
    "FrameReader",
    "LastFrames",
    "Limits",
    "Metadata",
    "StillImage",
    "Track",
    "VideoInfo",
    "VideoWriter",
    "check_extension",
    "check_output",
    "default_output_path",
    "fit",
    "frames",
    "is_being_written",
    "open_video",
    "partial_path",
    "read_frames_at",
    "read_image",
    "read_last_frames",
    "read_metadata",
    "resolve_output",
    "splice",
    "unfit",
    "unused_path",
]
