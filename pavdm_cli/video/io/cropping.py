"""Cropping by the container (`clap` of MP4, PixelCrop of Matroska); decoders apply that of the bitstream."""

from __future__ import annotations

from dataclasses import dataclass

from pavdm_cli.video.frame import Frame
from pavdm_cli.video.matroska_header import read_integer

# IDs of Matroska's elements
CROP_ELEMENTS = {"left": b"\x54\xcc", "top": b"\x54\xbb", "right": b"\x54\xdd", "bottom": b"\x54\xaa"}
CODEC_PRIVATE = b"\x63\xa2"  # follows the description of the video


@dataclass(frozen=True, slots=True)
class Cropping:
    """Columns and rows of decoded frames that are not displayed."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def displayed_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the displayed part of a decoded frame."""
        return height - self.top - self.bottom, width - self.left - self.right

    def apply(self, frame: Frame) -> Frame:
        """The displayed part of a decoded frame (H, W, 3)."""
        height, width = self.displayed_size(*frame.shape[:2])
        return frame[self.top :, self.left :][:height, :width]

    def note(self) -> str:
        """A note for the user, empty if nothing changes."""
        return "cropped as the container specifies" if self != Cropping() else ""


def read_cropping(header: bytes, height: int, width: int) -> Cropping:
    """The cropping of a stream with this Matroska header; none if nothing would be left of a frame of this size."""
    video = header.partition(CODEC_PRIVATE)[0]
    cropping = Cropping(**{side: read_integer(video, element) for side, element in CROP_ELEMENTS.items()})
    return cropping if min(cropping.displayed_size(height, width)) > 0 else Cropping()
