"""Display orientation: phones store frames as the sensor saw them, with a matrix that rotates them for display."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.buffer import Buffer

from pavdm_cli.video.frame import Frame


@dataclass(frozen=True, slots=True)
class Orientation:
    """A transposition, followed by flips."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, frame: Frame) -> Frame:  # (H, W, 3) -> (H, W, 3), or (W, H, 3) if transposed
        """Rotate and flip a stored frame for display."""
        rotated_frame = frame.transpose(1, 0, 2) if self.transposed else frame
        return np.ascontiguousarray(rotated_frame[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])

    def note(self) -> str:
        """A note for the user, empty if nothing changes."""
        return "rotated upright" if self != Orientation() else ""


ROTATIONS = (  # by 0, 90, 180 and 270 degrees counter-clockwise
    Orientation(),
    Orientation(True, False, True),
    Orientation(False, True, True),
    Orientation(True, True, False),
)


def read_orientation(frame: av.VideoFrame) -> Orientation:
    """The frame's display matrix, rounded to a quarter turn.

    The matrix maps a point (x, y) to (a x + c y, b x + d y) with y downwards, stored as a b u c d v x y w.
    """
    try:
        data = cast(Mapping[str, Buffer], frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return Orientation()
    except ValueError:  # the frame also has side data of a type that PyAV does not know
        return ROTATIONS[round(frame.rotation / 90) % 4]
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(False, flip_x=a < 0, flip_y=d < 0)
