"""Captions: a scene in varied, grammatical words."""

from __future__ import annotations

import random

from pavdm_cli.pocket_world.prompt import preposition, sentences
from pavdm_cli.pocket_world.vocabulary import WORDINGS
from pavdm_cli.pocket_world.world import Scene


def caption(scene: Scene, draw: random.Random) -> str:
    """One sentence about a scene; a motion or a still camera may go unsaid."""

    def pick(kind: str, meaning: str) -> str:
        return draw.choice(WORDINGS[kind][meaning])

    said = {"colour": pick("colour", scene.colour), "object": pick("object", scene.object)}
    said["motion"] = "" if draw.random() < 0.08 else pick("motion", scene.motion)
    said["terrain"] = pick("terrain", scene.terrain)
    said["time of day"] = pick("time of day", scene.time)
    said["camera"] = pick("camera", scene.camera)
    return draw.choice(sentences(said, preposition(scene.object, scene.motion)))
