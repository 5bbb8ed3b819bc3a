"""Craft of the rendered world: boat, airplane, rocket, airship and flying saucer; those with a bow face right."""

from __future__ import annotations

import torch

from pavdm_cli.pocket_world.palette import FLAME, GLASS, LAMPS, WOOD
from pavdm_cli.pocket_world.shapes import (
    Layer,
    View,
    box,
    capsule,
    cover,
    disc,
    ellipse,
    flat,
    polygon,
    rim,
    shade,
    union,
)


def boat(at: View) -> list[Layer]:
    """A wooden hull under a colored mainsail and a pale jib."""
    dx, dy = at.dx, at.dy
    hull = torch.maximum((dy - 0.055).abs() - 0.040, dx.abs() - 0.185 + 0.9 * dy)
    main = torch.maximum(0.012 - dx, torch.maximum(dy + 0.005, (dx / 0.15 - (dy + 0.005) / 0.26 - 1) * 0.13))
    jib = torch.maximum(0.018 + dx, torch.maximum(dy + 0.005, (-dx / 0.11 - (dy + 0.005) / 0.20 - 1) * 0.10))
    return [
        Layer(cover(box(dx, dy + 0.12, 0.009, 0.15), at.soft), flat(dx), 1.0, WOOD),
        Layer(cover(jib, at.soft), flat(dx), 0.55),
        Layer(cover(main, at.soft), 1.05 + 0.8 * dx),
        Layer(cover(hull, at.soft), 1.1 - 2.0 * dy.expand_as(dx), 1.0, WOOD),
    ]


def airplane(at: View) -> list[Layer]:
    """An airliner from the side: a long fuselage, a tail fin, and a pale wing swept towards the viewer."""
    dx, dy = at.dx, at.dy
    body = capsule(dx, dy, 0.225, 0.058)
    fin = polygon(dx, dy, (-0.235, -0.165), (-0.165, -0.165), (-0.075, -0.03), (-0.215, -0.01))
    wing = polygon(dx, dy, (-0.015, 0.005), (0.085, 0.005), (-0.065, 0.155), (-0.125, 0.155))
    windows = torch.maximum(box(dx + 0.025, dy + 0.02, 0.125, 0.015), (torch.remainder(dx, 0.07) - 0.035).abs() - 0.022)
    cockpit = torch.maximum(
        body + 0.012, polygon(dx, dy, (0.150, -0.06), (0.24, -0.06), (0.24, -0.008), (0.165, -0.008))
    )
    return [
        Layer(cover(fin, at.soft), 0.82 * rim(fin, at.soft)),
        Layer(cover(body, at.soft), (1.0 - 2.2 * dy.expand_as(dx)).clamp(0.75, 1.1) * rim(body, at.soft)),
        Layer(cover(windows, at.soft), flat(dx), 0.8, GLASS),
        Layer(cover(cockpit, at.soft), flat(dx), 0.9, GLASS),
        Layer(cover(wing, at.soft), flat(dx, 0.95) * rim(wing, at.soft), 0.65),
    ]


def rocket(at: View) -> list[Layer]:
    """An upright rocket: a pointed body with a pale nose and a round window, fins, and a steady flame."""
    dx, dy = at.dx, at.dy - 0.01
    half = 0.078 * (1 - ((-0.03 - dy) / 0.20).clamp(0, 1).square())
    body = torch.maximum(dx.abs() - half, torch.maximum(dy - 0.115, -0.225 - dy))
    left = polygon(dx, dy, (-0.060, 0.005), (-0.060, 0.110), (-0.150, 0.165), (-0.150, 0.100))
    right = polygon(-dx, dy, (-0.060, 0.005), (-0.060, 0.110), (-0.150, 0.165), (-0.150, 0.100))
    fins = union(left, right)
    flame = polygon(dx, dy, (-0.050, 0.105), (0.050, 0.105), (0.0, 0.245))
    nose = cover(body, at.soft) * cover(dy + 0.115, at.soft)
    light = (1.0 - 3.0 * dx).clamp(0.72, 1.15) * rim(body, at.soft)
    window = disc(dx, dy + 0.035, 0.036)
    return [
        Layer(cover(flame, at.soft), flat(dx, 1.25), 1.0, FLAME),
        Layer(cover(fins, at.soft), 0.70 * rim(fins, at.soft)),
        Layer(cover(body, at.soft), light),
        Layer(nose, light, 0.75),
        Layer(cover(window, at.soft), 0.6 + 0.4 * rim(window, at.soft), 0.9, GLASS),
    ]


def airship(at: View) -> list[Layer]:
    """A long cigar with a pale belt, three fins at its stern and a gondola under it."""
    dx, dy = at.dx, at.dy
    hull = ellipse(dx, dy + 0.02, 0.235, 0.098)
    upper = polygon(dx, dy + 0.02, (-0.245, -0.125), (-0.185, -0.125), (-0.120, -0.04), (-0.220, -0.02))
    lower = polygon(dx, -dy - 0.02, (-0.245, -0.125), (-0.185, -0.125), (-0.120, -0.04), (-0.220, -0.02))
    fins = union(upper, lower)
    belt = cover(hull, at.soft) * cover((dy + 0.015).abs() - 0.020, at.soft)
    light = shade(dx * 0.6, dy, rim(hull, at.soft))
    return [
        Layer(cover(fins, at.soft), 0.75 * rim(fins, at.soft)),
        Layer(cover(capsule(dx - 0.03, dy - 0.095, 0.075, 0.032), at.soft), flat(dx), 1.0, WOOD),
        Layer(cover(hull, at.soft), light),
        Layer(belt, light, 0.7),
    ]


def ufo(at: View) -> list[Layer]:
    """A flying saucer: a wide flat disc with a glass dome above and lamps around its rim."""
    dx, dy = at.dx, at.dy
    dome = torch.maximum(ellipse(dx, dy + 0.015, 0.095, 0.125), dy + 0.015)
    plate = ellipse(dx, dy - 0.02, 0.225, 0.070)
    keel = torch.maximum(ellipse(dx, dy - 0.06, 0.105, 0.065), 0.06 - dy)
    lamps = union(*(disc(dx - x, dy - y, 0.021) for x, y in ((-0.13, 0.022), (0.0, 0.034), (0.13, 0.022))))
    return [
        Layer(cover(keel, at.soft), flat(dx, 0.55)),
        Layer(cover(dome, at.soft), (1.05 - 1.5 * dx).clamp(0.8, 1.2) * rim(dome, at.soft), 0.85, GLASS),
        Layer(cover(plate, at.soft), shade(dx * 0.7, dy, rim(plate, at.soft))),
        Layer(cover(lamps, at.soft), flat(dx, 1.2), 1.0, LAMPS),
    ]
