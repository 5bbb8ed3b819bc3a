"""Which way up a picture is meant to be shown: phones store it as the sensor saw it and say how to turn it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.buffer import Buffer

from pavdm_cli.video.write.encode import Frame


@dataclass(frozen=True, slots=True)
class Orientation:
    """Rows and columns exchanged first (`turned`), then mirrored."""

    turned: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def upright(self, frame: Frame) -> Frame:  # (H, W, 3) -> (H, W, 3), or (W, H, 3) if turned
        """The frame as it is meant to be seen."""
        seen = frame.transpose(1, 0, 2) if self.turned else frame
        seen = seen[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.ascontiguousarray(seen)

    def note(self) -> str:
        """What is done, in a line, or nothing."""
        return "turned upright" if self != Orientation() else ""


ROTATIONS = (
    Orientation(),
    Orientation(True, False, True),
    Orientation(False, True, True),
    Orientation(True, True, False),
)


def orientation(picture: av.VideoFrame) -> Orientation:
    """What the picture's display matrix asks for, to the nearest quarter turn.

    The matrix maps a point (x, y) to (a x + c y, b x + d y), y downwards, stored as a b u c d v x y w.
    """
    try:
        data = cast(Mapping[str, Buffer], picture.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return Orientation()
    except ValueError:  # beside it a kind of side data that PyAV has no name for
        return ROTATIONS[round(picture.rotation / 90) % 4]
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(False, flip_x=a < 0, flip_y=d < 0)
