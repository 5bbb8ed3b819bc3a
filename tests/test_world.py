"""The rendered world: the same picture from the same seed at any time, with an object always in view."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.scenes import ASPECT, PLAIN, RICH, SCENES, SIZE, paint

from pavdm_cli.pocket_world.palette import AMBIENT, PAINT, SKY
from pavdm_cli.pocket_world.render import position
from pavdm_cli.pocket_world.vocabulary import AFLOAT, CAMERAS, COLORS, MOTIONS, OBJECTS, TERRAINS, TIMES, WEATHERS
from pavdm_cli.pocket_world.world import HORIZON, WEATHER_SHARES, Scene, sample_scene

SMALLEST = 180  # pixels of 6144 that any object covers
both_dials = pytest.mark.parametrize("detail", [PLAIN, RICH])


@both_dials
def test_the_same_seed_paints_the_same_bytes_and_no_global_random_state_is_touched(detail):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = paint([sample_scene(seed) for seed in range(6)], [0.0, 7.3], detail)
    random.seed(9)
    torch.rand(3)
    again = paint([sample_scene(seed) for seed in range(6)], [0.0, 7.3], detail)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.mask, again.mask)
    random.setstate(states[1])
    torch.set_rng_state(states[0])
    paint([sample_scene(11)], [1.0], detail)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_the_first_scenes_are_those_the_shipped_model_learnt():
    words = [(s.terrain, s.time, s.object, s.color, s.motion, s.camera, s.weather) for s in SCENES[:3]]
    assert words == [
        ("sea", "day", "bird", "purple", "hovering", "left", "snowfall"),
        ("snow", "day", "kite", "purple", "drifting", "left", "rain"),
        ("hills", "day", "ball", "white", "bouncing", "right", "rain"),
    ]


def test_the_plain_picture_is_the_one_the_shipped_model_learnt():
    """Mean brightness of four bands, from the sky down, of four scenes; another world needs other weights."""
    bands = paint(SCENES[:4], [3.0]).frames[:, 0].unflatten(-2, (4, 16)).mean((1, 3, 4))
    known = [
        [0.5873, 0.6476, 0.5913, 0.4787],
        [0.4429, 0.5086, 0.5320, 0.6013],
        [0.4572, 0.5615, 0.5340, 0.2832],
        [0.6173, 0.7235, 0.5759, 0.4366],
    ]
    torch.testing.assert_close(bands, torch.tensor(known), rtol=0, atol=2e-4)


def test_clear_scenes_on_land_look_as_in_the_first_edition():
    """Mean brightness of four bands, from the sky down, measured before there was weather."""
    rest = {"weather": "clear", "home": (0.0, 0.0), "phase": 0.3, "period": 1.0}
    rest |= {"ground": (1.0, 2.0, 3.0), "light": (0.0, 0.0), "grain": 7}
    scenes = [
        Scene("hills", "sunset", "balloon", "red", "circling", "left", **rest),
        Scene("mountains", "dawn", "kite", "green", "drifting", "right", **rest),
        Scene("dunes", "day", "ball", "white", "bouncing", "still", **rest),
    ]
    bands = paint(scenes, [3.0]).frames[:, 0].unflatten(-2, (4, 16)).mean((1, 3, 4))
    known = [
        [0.3591, 0.4768, 0.5034, 0.2652],
        [0.6312, 0.6955, 0.6688, 0.3879],
        [0.6309, 0.7479, 0.8187, 0.6635],
    ]
    torch.testing.assert_close(bands, torch.tensor(known), rtol=0, atol=2e-4)


def test_every_word_of_a_scene_is_drawn_about_equally_often():
    scenes = [sample_scene(seed) for seed in range(6000)]
    for name, words in (("time", TIMES), ("object", OBJECTS), ("color", COLORS), ("camera", CAMERAS)):
        found = Counter(getattr(scene, name) for scene in scenes)
        assert {word: found[word] / 6000 for word in words} == pytest.approx(
            dict.fromkeys(words, 1 / len(words)), abs=0.025
        )
    found = Counter(scene.weather for scene in scenes)
    assert [found[word] / 6000 for word in WEATHERS] == pytest.approx(WEATHER_SHARES, abs=0.025)
    flying = [scene for scene in scenes if scene.object not in AFLOAT]
    for name, words in (("terrain", TERRAINS), ("motion", MOTIONS)):
        found = Counter(getattr(scene, name) for scene in flying)
        assert {word: found[word] / len(flying) for word in words} == pytest.approx(
            dict.fromkeys(words, 1 / len(words)), abs=0.025
        )


@both_dials
def test_a_batch_paints_what_each_scene_paints_alone(detail):
    together = paint(SCENES[:12], [2.0, 41.0], detail)
    for index in range(12):
        alone = paint([SCENES[index]], [2.0, 41.0], detail)
        torch.testing.assert_close(together.frames[index], alone.frames[0], rtol=0, atol=2e-6)
        torch.testing.assert_close(together.mask[index], alone.mask[0], rtol=0, atol=2e-6)


@both_dials
def test_a_moment_is_the_same_painted_alone_or_within_a_video(detail):
    video = paint(SCENES[:8], torch.arange(6) / 8, detail)
    moment = paint(SCENES[:8], [3 / 8], detail)
    torch.testing.assert_close(video.frames[:, 3:4], moment.frames, rtol=0, atol=2e-6)


@both_dials
@pytest.mark.parametrize("moment", [-5.0, 0.0, 60.0, 3600.0])
def test_any_moment_can_be_painted(moment, detail):
    picture = paint(SCENES[:16], [moment], detail)
    assert picture.frames.shape == (16, 1, 3, *SIZE)
    assert picture.frames.isfinite().all()
    assert picture.frames.min() >= 0
    assert picture.frames.max() <= 1
    assert (picture.mask.sum((-1, -2)) > SMALLEST).all()


@pytest.mark.parametrize("size", [(32, 48), (64, 96), (128, 96)])
def test_any_size_can_be_painted(size):
    picture = paint(SCENES[:4], [1.0], size=size)
    assert picture.frames.shape[-2:] == picture.mask.shape[-2:] == size


def test_the_object_is_always_in_view_and_large():
    """Over its whole path: of 400 scenes, 40 moments each; and 80 of them painted."""
    seconds = torch.arange(40).expand(400, -1) * 0.43
    x, y = position(SCENES, seconds, ASPECT)
    assert x.min() > 0.16
    assert x.max() < ASPECT - 0.16
    assert y.min() > 0.14
    assert y.max() < 0.86
    mask = paint(SCENES[:120], seconds[0, ::7]).mask
    area = (mask > 0.5).sum((-1, -2))
    assert area.min() > SMALLEST
    for kind in OBJECTS:
        chosen = torch.tensor([scene.object == kind for scene in SCENES[:120]])
        assert area[chosen].min() > (0.7 if kind == "butterfly" else 0.8) * area[chosen].max(), kind
        assert mask[chosen][..., [0, -1]].max() == 0  # nothing is cut off at the sides, or above and below
        assert kind in ("balloon", "kite") or mask[chosen][..., [0, -1], :].max() == 0, kind


def test_the_mask_lies_on_the_object_and_what_is_under_it_has_its_color():
    bright = [replace(s, time="day", motion="hovering", weather="clear") for s in SCENES[:48]]
    picture = paint(bright, [1.0])
    x, y = position(bright, torch.ones(48, 1), ASPECT)
    columns, rows = (torch.arange(n) + 0.5 for n in (96, 64))
    for index, scene in enumerate(bright):
        mask = picture.mask[index, 0]
        middle = (mask.sum(0) @ columns / mask.sum() / 64, mask.sum(1) @ rows / mask.sum() / 64)
        assert abs(middle[0] - x[index, 0]) < 0.04
        assert abs(middle[1] - y[index, 0]) < 0.07
        inside = picture.frames[index, 0][:, mask > 0.9]  # (3, pixels)
        away = {c: (inside - 0.85 * torch.tensor(v)[:, None]).abs().sum(0).median().item() for c, v in PAINT.items()}
        if scene.object != "boat":  # most of which is wood and a pale jib
            assert min(away, key=lambda color: away[color]) == scene.color, (index, away)


@both_dials
def test_motion_is_continuous(detail):
    """A still camera aside, nothing jumps: halving the time between two frames about halves their difference."""
    for camera in CAMERAS:
        scenes = [replace(scene, camera=camera) for scene in SCENES[:10]]
        frames = paint(scenes, torch.arange(17) / 16, detail, (32, 48)).frames
        whole, half = ((frames[:, stride:] - frames[:, :-stride]).abs().mean((2, 3, 4)) for stride in (2, 1))
        assert whole.max() < 0.05
        assert half.max() < 0.6 * whole.max()
        assert (half.max(dim=1).values < 4 * half.mean(dim=1) + 1e-3).all()


def test_every_path_is_smooth_and_comes_back():
    times = torch.arange(0, 30, 0.02)
    for scene in SCENES[:80]:
        x, y = position([scene], times[None], ASPECT)
        speed = (x.diff().square() + y.diff().square()).sqrt() / 0.02
        assert speed.max() < 0.35  # units a second; a picture is 1 high
        assert (x.max() - x.min() > 0.05) == (scene.motion in ("drifting", "circling"))
        assert (y.max() - y.min() > 0.05) == (scene.motion in ("bouncing", "circling"))


def slide(scene: Scene, detail: float = PLAIN) -> int:
    """How many pixels to the right the ground at the bottom moved within two seconds, by the best match."""
    first, second = paint([scene], [0.0, 2.0], detail).frames[0, :, :, -8:].mean((1, 2))  # (W,)
    shifts = range(-24, 25)
    errors = [(first[24:-24] - second[24 + s : 72 + s]).square().mean().item() for s in shifts]
    return shifts[errors.index(min(errors))]


@pytest.mark.parametrize("terrain", ["hills", "dunes"])
@both_dials
def test_a_camera_that_pans_right_sees_the_land_move_left(terrain, detail):
    for seed in range(6):
        scene = replace(SCENES[seed], terrain=terrain, object="kite", motion="hovering", weather="clear")
        moved = {camera: slide(replace(scene, camera=camera), detail) for camera in CAMERAS}
        assert moved["still"] == 0
        assert -22 <= moved["right"] <= -14
        assert 14 <= moved["left"] <= 22


@both_dials
def test_islands_are_always_in_view_so_that_a_pan_over_the_sea_shows(detail):
    wet = [replace(scene, object="kite", home=(9.0, 0.0)) for scene in SCENES if scene.terrain == "sea"][:20]
    above = slice(round((HORIZON - 0.1) * 64), round(HORIZON * 64) - 1)
    for camera in CAMERAS:
        panned = [replace(scene, camera=camera) for scene in wet]
        band = paint(panned, [0.0, 7.0, 26.0, 59.0], detail).frames[..., above, :]
        assert (band.amax(-1) - band.amin(-1)).amax((2, 3)).min() > 0.1


def test_far_land_moves_less_than_near_land():
    scene = replace(SCENES[1], terrain="hills", camera="right", object="kite", motion="hovering", weather="clear")
    frames = paint([scene], [0.0, 0.5]).frames[0]
    change = (frames[1] - frames[0]).abs().mean((0, 2))  # (H,)
    assert change[:20].max() < 0.35 * change[36:].max()  # the sky, but for the kite, stands still
    assert change[2:6].max() == 0


def test_boats_and_ducks_float_where_the_sea_is():
    boats = [scene for scene in SCENES if scene.object in AFLOAT]
    assert len(boats) > 50
    assert {scene.terrain for scene in boats} == {"sea"}
    assert {scene.motion for scene in boats} == {"drifting", "bouncing", "hovering"}
    _, y = position(boats, torch.arange(40).expand(len(boats), -1) * 0.2, ASPECT)
    assert y.min() + 0.095 > HORIZON  # the keel is in the water
    assert y.max() + 0.095 < 0.85
    mask = paint(boats[:12], torch.arange(8) * 0.5).mask
    lowest = torch.tensor([[int((frame.sum(1) > 3).nonzero().max()) for frame in clip] for clip in mask])
    assert lowest.min() >= HORIZON * 64
    top = torch.tensor([[int((frame.sum(1) > 0.5).nonzero().min()) for frame in clip] for clip in mask])
    assert top.max() < HORIZON * 64  # and the sail in the air


def test_every_word_changes_the_picture():
    scene = replace(
        SCENES[2], terrain="hills", object="kite", motion="drifting", camera="left", weather="clear", color="red"
    )
    plain = paint([scene], [1.7]).frames
    for name, words in {
        "terrain": TERRAINS,
        "time": TIMES,
        "object": OBJECTS,
        "color": COLORS,
        "motion": MOTIONS,
        "camera": CAMERAS,
        "weather": WEATHERS,
    }.items():
        others = [word for word in words if word != getattr(scene, name) and word not in AFLOAT]
        for word in others:
            assert (paint([replace(scene, **{name: word})], [1.7]).frames - plain).abs().max() > 0.05, word


def test_skies_differ_by_time_of_day():
    brightness = {}
    for time in TIMES:
        sky = paint([replace(SCENES[0], time=time, weather="clear")], [0.0]).frames[0, 0, :, 0, -1]
        torch.testing.assert_close(sky, torch.tensor(SKY[time][0]), rtol=0, atol=0.06)
        brightness[time] = sky.mean().item()
    assert brightness["night"] < 0.5 * brightness["sunset"] < 0.5 * brightness["day"]
    assert AMBIENT.keys() == SKY.keys() == set(TIMES)
