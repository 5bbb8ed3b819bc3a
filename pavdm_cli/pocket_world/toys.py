"""Toys of the rendered world: ball, kite, balloon and umbrella."""

from __future__ import annotations

import torch

from pavdm_cli.pocket_world.palette import WOOD
from pavdm_cli.pocket_world.shapes import Layer, View, box, cover, disc, ellipse, flat, rim, shade


def ball(at: View) -> list[Layer]:
    """A beach ball: a disc with a pale band."""
    edge = (at.dx.square() + at.dy.square()).sqrt() - 0.155
    body = cover(edge, at.soft)
    band = body * cover((at.dy + 0.35 * at.dx).abs() - 0.035, at.soft)
    light = shade(at.dx, at.dy, rim(edge, at.soft))
    return [Layer(body, light), Layer(band, light, 0.75)]


def balloon(at: View) -> list[Layer]:
    """A hot air balloon: a tapering striped envelope over a basket."""
    up = at.dy + 0.05
    half = 0.155 - 0.075 * (up / 0.19).clamp(0, 1).square()
    edge = ((at.dx / half).square() + (up / 0.19).square()).sqrt().sub(1) * 0.14
    stripes = 0.90 + 0.18 * torch.cos(at.dx / half * 7.0)
    neck = box(at.dx, at.dy - 0.15, 0.030, 0.045)
    basket = box(at.dx, at.dy - 0.205, 0.045, 0.035)
    return [
        Layer(cover(neck, at.soft), flat(at.dx, 0.8), 0.5, WOOD),
        Layer(cover(edge, at.soft), shade(at.dx, up, rim(edge, at.soft)) * stripes),
        Layer(cover(basket, at.soft), flat(at.dx), 1.0, WOOD),
    ]


def kite(at: View) -> list[Layer]:
    """A diamond in two tones with a tail of bows."""
    edge = (at.dx.abs() / 0.14 + (at.dy + 0.04).abs() / 0.19 - 1) * 0.11
    checks = 0.93 + 0.19 * (at.dx / at.soft).clamp(-1, 1) * ((at.dy + 0.04) / at.soft).clamp(-1, 1)
    bows = torch.minimum(disc(at.dx - 0.022, at.dy - 0.19, 0.030), disc(at.dx + 0.022, at.dy - 0.25, 0.030))
    return [
        Layer(cover(bows, at.soft), flat(at.dx, 0.8)),
        Layer(cover(edge, at.soft), checks * rim(edge, at.soft)),
    ]


def umbrella(at: View) -> list[Layer]:
    """A parasol: a striped dome with a scalloped edge, on a pole with a crook."""
    dome = ellipse(at.dx, at.dy, 0.205, 0.185)
    scallops = 0.028 * (1 - (at.dx / 0.068 * torch.pi).cos().abs()) - 0.012
    edge = torch.maximum(dome, at.dy + 0.012 + scallops)
    stripe = cover(ellipse(at.dx, at.dy, 0.068, 0.185), at.soft) * cover(edge, at.soft)
    light = shade(at.dx, at.dy + 0.05, rim(edge, at.soft))
    crook = torch.maximum(disc(at.dx - 0.035, at.dy - 0.165, 0.035).abs() - 0.012, 0.165 - at.dy)
    return [
        Layer(cover(box(at.dx, at.dy - 0.005, 0.012, 0.165), at.soft), flat(at.dx), 1.0, WOOD),
        Layer(cover(crook, at.soft), flat(at.dx), 1.0, WOOD),
        Layer(cover(edge, at.soft), light),
        Layer(stripe, light, 0.75),
    ]
