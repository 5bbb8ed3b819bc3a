"""Captions: a scene in varied, grammatical words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pavdm_cli.models import words
from pavdm_cli.train.world import Scene

PLACE = {"drifting": "over", "bouncing": "over", "circling": "above", "hovering": "above"}


def caption(scene: Scene, draw: random.Random) -> str:
    """One sentence about a scene; a motion or a still camera may go unsaid."""
    thing = _pick(words.COLOUR_WORDINGS, scene.colour, draw) + " " + _pick(words.OBJECT_WORDINGS, scene.object, draw)
    moving = "" if draw.random() < 0.08 else " " + _pick(words.MOTION_WORDINGS, scene.motion, draw)
    place = ("on" if scene.object == "boat" else PLACE[scene.motion]) + " "
    where = place + _pick(words.TERRAIN_WORDINGS, scene.terrain, draw)
    when = _pick(words.TIME_WORDINGS, scene.time, draw)
    camera = _pick(words.CAMERA_WORDINGS, scene.camera, draw)
    sentence = draw.choice(
        (
            f"a {thing}{moving} {where} {when}",
            f"{when}, a {thing}{moving} {where}",
            f"{where} {when}, a {thing}{moving}",
        )
    )
    return f"{sentence}, {camera}" if camera else sentence


def _pick(table: Mapping[str, Sequence[str]], meaning: str, draw: random.Random) -> str:
    return draw.choice(table[meaning])
