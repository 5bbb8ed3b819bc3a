"""Video files in and out, as uint8 RGB frames (H, W, 3); knows nothing of models and never imports torch."""

from pavdm_cli.video.encode import Encoding, Frame, Track
from pavdm_cli.video.metadata import Metadata, read_metadata
from pavdm_cli.video.output import SUFFIXES, check_output, default_name, partial_path
from pavdm_cli.video.write import VideoWriter

__all__ = [
    "SUFFIXES",
    "Encoding",
    "Frame",
    "Metadata",
    "Track",
    "VideoWriter",
    "check_output",
    "default_name",
    "partial_path",
    "read_metadata",
]
