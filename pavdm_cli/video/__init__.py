"""Read and write video files as uint8 RGB frames (H, W, 3); independent of models, never imports torch."""

from pavdm_cli.video.frame import Frame
from pavdm_cli.video.io.frames import FrameReader, LastFrames, read_frames_at, read_last_frames
from pavdm_cli.video.io.image import StillImage, read_image
from pavdm_cli.video.io.info import VideoInfo, open_video
from pavdm_cli.video.io.input import VIDEO_SUFFIXES, Limits
from pavdm_cli.video.metadata import Metadata, read_metadata
from pavdm_cli.video.paths import partial_path
from pavdm_cli.video.resize import scale_to_cover
from pavdm_cli.video.write.encode import EncoderOptions
from pavdm_cli.video.write.extend import ExtensionOptions, ExtensionWriter, check_extension, check_not_input
from pavdm_cli.video.write.output import (
    SUFFIXES,
    check_output,
    default_output_path,
    is_being_written,
    resolve_output,
    unused_path,
)
from pavdm_cli.video.write.writer import VideoWriter

__all__ = [
    "SUFFIXES",
    "VIDEO_SUFFIXES",
    "EncoderOptions",
    "ExtensionOptions",
    "ExtensionWriter",
    "Frame",
    "FrameReader",
    "LastFrames",
    "Limits",
    "Metadata",
    "StillImage",
    "VideoInfo",
    "VideoWriter",
    "check_extension",
    "check_not_input",
    "check_output",
    "default_output_path",
    "is_being_written",
    "open_video",
    "partial_path",
    "read_frames_at",
    "read_image",
    "read_last_frames",
    "read_metadata",
    "resolve_output",
    "scale_to_cover",
    "unused_path",
]
