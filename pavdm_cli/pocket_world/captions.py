"""Captions of scenes, in varied grammatical sentences."""

from __future__ import annotations

import random

from pavdm_cli.pocket_world.prompt import preposition, sentences
from pavdm_cli.pocket_world.vocabulary import PHRASES
from pavdm_cli.pocket_world.world import Scene


def caption(scene: Scene, rng: random.Random) -> str:
    """One random sentence about a scene; it may omit the motion, or a still camera."""

    def phrase(kind: str, meaning: str) -> str:
        return rng.choice(PHRASES[kind][meaning])

    phrases = {"color": phrase("color", scene.color), "object": phrase("object", scene.object)}
    phrases["motion"] = "" if rng.random() < 0.08 else phrase("motion", scene.motion)
    phrases["terrain"] = phrase("terrain", scene.terrain)
    phrases["time of day"] = phrase("time of day", scene.time)
    if scene.weather != "clear" and "sunny" in phrases["time of day"]:
        phrases["time of day"] = PHRASES["time of day"][scene.time][0]
    phrases["weather"] = phrase("weather", scene.weather)
    phrases["camera"] = phrase("camera", scene.camera)
    return rng.choice(sentences(phrases, preposition(scene.object, scene.motion)))
