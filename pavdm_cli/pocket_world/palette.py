"""The colors of the rendered world, red, green, blue from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Lamp:
    """A sun or moon: its usual place and size in units, and its color."""

    x: float
    y: float
    radius: float
    color: Color


SKY: dict[str, tuple[Color, Color]] = {  # zenith, horizon
    "day": ((0.22, 0.52, 0.92), (0.74, 0.90, 0.98)),
    "dawn": ((0.46, 0.52, 0.80), (0.99, 0.82, 0.78)),
    "sunset": ((0.30, 0.18, 0.46), (0.99, 0.55, 0.27)),
    "night": ((0.03, 0.04, 0.14), (0.13, 0.17, 0.37)),
}
LIGHT = {
    "day": Lamp(1.22, 0.15, 0.075, (1.0, 0.97, 0.78)),
    "dawn": Lamp(0.28, 0.40, 0.085, (1.0, 0.93, 0.84)),
    "sunset": Lamp(1.16, 0.45, 0.110, (1.0, 0.84, 0.45)),
    "night": Lamp(0.30, 0.17, 0.070, (0.95, 0.95, 0.86)),
}
AMBIENT: dict[str, Color] = {  # what daylight colors are multiplied by
    "day": (1.0, 1.0, 1.0),
    "dawn": (0.96, 0.84, 0.90),
    "sunset": (0.86, 0.62, 0.58),
    "night": (0.26, 0.31, 0.52),
}
GROUND: dict[str, tuple[Color, Color, Color]] = {  # far, middle, near
    "hills": ((0.50, 0.72, 0.40), (0.34, 0.62, 0.27), (0.20, 0.48, 0.17)),
    "mountains": ((0.55, 0.60, 0.76), (0.38, 0.43, 0.58), (0.22, 0.37, 0.30)),
    "dunes": ((0.97, 0.82, 0.58), (0.95, 0.73, 0.42), (0.90, 0.62, 0.28)),
    "sea": ((0.18, 0.36, 0.26), (0.13, 0.46, 0.66), (0.13, 0.46, 0.66)),
    "snow": ((0.62, 0.72, 0.88), (0.80, 0.87, 0.96), (0.95, 0.97, 1.00)),
    "city": ((0.55, 0.60, 0.72), (0.42, 0.44, 0.54), (0.26, 0.30, 0.30)),
}
PAINT: dict[str, Color] = {
    "red": (0.90, 0.12, 0.12),
    "yellow": (1.00, 0.85, 0.08),
    "green": (0.10, 0.75, 0.25),
    "blue": (0.12, 0.28, 0.95),
    "purple": (0.60, 0.16, 0.80),
    "white": (0.97, 0.97, 0.98),
    "orange": (1.00, 0.48, 0.02),
    "pink": (1.00, 0.50, 0.74),
    "turquoise": (0.05, 0.80, 0.80),
    "brown": (0.50, 0.29, 0.13),
}
WOOD: Color = (0.40, 0.22, 0.10)
GLASS: Color = (0.72, 0.90, 1.00)
FLAME: Color = (1.00, 0.62, 0.10)
LAMPS: Color = (1.00, 0.92, 0.45)
BEAK: Color = (1.00, 0.55, 0.08)
INK: Color = (0.10, 0.09, 0.12)
FIR: Color = (0.12, 0.32, 0.24)
WINDOW: Color = (1.00, 0.84, 0.45)
