"""Animals of the rendered world: bird, butterfly and rubber duck; they face right."""

from __future__ import annotations

import torch

from pavdm_cli.pocket_world.palette import BEAK, INK
from pavdm_cli.pocket_world.shapes import Layer, View, box, cover, disc, ellipse, flat, polygon, rim, shade, union


def bird(at: View) -> list[Layer]:
    """A plump bird in flight from the side: round head, beak, fanned tail, and a raised wing that beats slowly."""
    dx, dy = at.dx, at.dy - 0.045
    tip = -0.205 - 0.035 * at.beat  # height of the wing's tip
    body = union(ellipse(dx + 0.010, dy - 0.015, 0.140, 0.080), disc(dx - 0.110, dy + 0.040, 0.072))
    tail = polygon(dx, dy, (-0.255, -0.065), (-0.120, -0.045), (-0.100, 0.060), (-0.235, 0.040))
    beak = polygon(dx, dy, (0.160, -0.080), (0.245, -0.035), (0.160, -0.010))
    wing = polygon(dx, dy, (-0.150, tip), (-0.085, tip - 0.012), (0.050, -0.060), (0.045, 0.0), (-0.055, 0.030))
    belly = torch.maximum(body + 0.014, ellipse(dx - 0.030, dy - 0.090, 0.120, 0.062))
    eye = disc(dx - 0.130, dy + 0.058, 0.018)
    return [
        Layer(cover(tail, at.soft), 0.72 * rim(tail, at.soft)),
        Layer(cover(beak, at.soft), flat(dx), 1.0, BEAK),
        Layer(cover(body, at.soft), shade(dx, dy, rim(body, at.soft))),
        Layer(cover(belly, at.soft), flat(dx), 0.6),
        Layer(cover(wing, at.soft), 0.78 * rim(wing, at.soft)),
        Layer(cover(eye, at.soft), flat(dx), 1.0, INK),
    ]


def butterfly(at: View) -> list[Layer]:
    """A butterfly from above: four round wings that open and close a little, around a dark body."""
    side = at.dx.abs() / (0.90 + 0.10 * at.beat)
    upper = ellipse(side - 0.108, at.dy + 0.066, 0.104, 0.094)
    lower = ellipse(side - 0.075, at.dy - 0.085, 0.072, 0.075)
    wings = union(upper, lower)
    spots = union(disc(side - 0.122, at.dy + 0.075, 0.040), disc(side - 0.082, at.dy - 0.090, 0.024))
    feelers = torch.maximum((side - 0.25 * (-0.13 - at.dy) - 0.012).abs() - 0.007, (at.dy + 0.165).abs() - 0.045)
    body = ellipse(at.dx, at.dy - 0.005, 0.024, 0.145)
    return [
        Layer(cover(feelers, at.soft), flat(at.dx), 1.0, INK),
        Layer(cover(wings, at.soft), shade(at.dx, at.dy, rim(wings, at.soft))),
        Layer(cover(spots, at.soft), flat(at.dx), 0.75),
        Layer(cover(body, at.soft), flat(at.dx), 1.0, INK),
    ]


def duck(at: View) -> list[Layer]:
    """A rubber duck afloat: a round breast, an upturned tail, a large head and a beak."""
    dx, dy = at.dx, at.dy
    tail = polygon(dx, dy, (-0.215, -0.085), (-0.160, -0.070), (-0.050, 0.0), (-0.140, 0.080))
    hull = torch.maximum(union(ellipse(dx + 0.01, dy - 0.030, 0.175, 0.095), tail), dy - 0.095)
    head = disc(dx - 0.075, dy + 0.100, 0.088)
    beak = union(ellipse(dx - 0.175, dy + 0.090, 0.052, 0.026), box(dx - 0.150, dy + 0.090, 0.030, 0.024))
    wing = torch.maximum(ellipse(dx + 0.035, dy - 0.015, 0.090, 0.052), -0.005 - dy)
    eye = disc(dx - 0.100, dy + 0.120, 0.018)
    return [
        Layer(cover(hull, at.soft), shade(dx, dy, rim(hull, at.soft))),
        Layer(cover(wing, at.soft), flat(dx, 0.66)),
        Layer(cover(beak, at.soft), flat(dx), 1.0, BEAK),
        Layer(cover(head, at.soft), shade(dx - 0.075, dy + 0.10, rim(head, at.soft))),
        Layer(cover(eye, at.soft), flat(dx), 1.0, INK),
    ]
