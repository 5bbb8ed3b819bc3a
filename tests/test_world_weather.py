"""Weather of the rendered world, and what slides when the camera pans: stars, clouds and crests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.scenes import SCENES, paint
from torch import Tensor

from pavdm_cli.pocket_world.vocabulary import AFLOAT, CAMERAS, OBJECTS, TERRAINS, TIMES, WEATHERS
from pavdm_cli.pocket_world.world import HORIZON, Scene

BARE = replace(SCENES[0], home=(9.0, 0.0), weather="clear", camera="still", motion="hovering")  # nothing in view
SKY = slice(0, 20)  # rows of 64


def clip(scene: Scene, *seconds: float) -> Tensor:
    return paint([scene], list(seconds)).frames[0]


def shift(before: Tensor, after: Tensor) -> int:
    """Pixels to the right by which one picture (3, H, W) is the other, by the best match."""
    errors = {n: (before[..., 12:-12] - after[..., 12 + n : 84 + n]).square().mean().item() for n in range(-12, 13)}
    return min(errors, key=lambda n: errors[n])


@pytest.mark.parametrize("terrain", TERRAINS)
@pytest.mark.parametrize("time", TIMES)
def test_each_weather_differs_from_the_others_everywhere(time: str, terrain: str) -> None:
    frames = {name: clip(replace(BARE, time=time, terrain=terrain, weather=name), 4.0)[0] for name in WEATHERS}
    for one in WEATHERS:
        for other in WEATHERS:
            assert one == other or (frames[one] - frames[other]).abs().mean() > 0.004, (one, other)
    assert frames["rain"].mean() < frames["clouds"].mean() <= frames["clear"].mean() + 0.02


@pytest.mark.parametrize("weather", ["rain", "snowfall"])
def test_what_falls_moves_a_few_pixels_from_frame_to_frame(weather: str) -> None:
    scene = replace(BARE, weather=weather, time="night", terrain="dunes")
    before, after = (clip(scene, t)[0] - clip(replace(scene, weather="clear", time="day"), t)[0] for t in (5.0, 5.125))
    down = {n: (before[:, 8:-8] - after[:, 8 + n : 56 + n]).square().mean().item() for n in range(-8, 9)}
    assert 0 <= min(down, key=lambda n: down[n]) <= 6
    assert (before - after).abs().mean() < 0.02


def test_clouds_move_with_the_wind_and_against_a_pan() -> None:
    sky = {
        camera: clip(replace(BARE, weather="clouds", time="day", camera=camera), 0.0, 2.0)[..., SKY, :]
        for camera in CAMERAS
    }
    moved = {camera: shift(*frames) for camera, frames in sky.items()}
    assert moved["right"] < moved["still"] < 0 < moved["left"]


def test_stars_and_crests_slide_with_a_pan_at_night() -> None:
    for camera in CAMERAS:
        scene = replace(BARE, terrain="sea", time="night", camera=camera)
        sky = clip(scene, 0.0, 4.0)[..., SKY, :]
        assert (torch.equal(sky[0], sky[1])) == (camera == "still")
        near = clip(scene, 0.0, 1.0)[..., round((HORIZON + 0.24) * 64) :, :]
        assert (near[0] - near[1]).abs().max() > (0.02 if camera == "still" else 0.05)


def test_no_star_shines_through_rain_or_by_day() -> None:
    for time, weather in (("night", "rain"), ("night", "snowfall"), ("day", "clear"), ("sunset", "clouds")):
        pair = [clip(replace(BARE, time=time, weather=weather, grain=grain), 3.0)[0] for grain in (1, 1)]
        assert torch.equal(*pair)
    starry = clip(replace(BARE, time="night", terrain="hills"), 0.0)[0, :, SKY]
    other = clip(replace(BARE, time="night", terrain="hills", grain=BARE.grain + 9000), 0.0)[0, :, SKY]
    assert (starry - other).abs().max() > 0.3


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_wing_beats_slowly_and_all_else_is_stiff(kind: str) -> None:
    terrain = "sea" if kind in AFLOAT else "hills"
    masks = paint(
        [replace(SCENES[0], object=kind, terrain=terrain, motion="hovering", home=(0.0, 0.0), phase=0.25)],
        torch.arange(0, 4, 1 / 16),
    ).mask[0]
    area = masks.sum((1, 2))
    assert ((area.max() - area.min()) / area.max() > 0.03) == (kind in ("bird", "butterfly"))
    assert ((area.diff().abs() / area.max()).max()) < 0.06


@pytest.mark.parametrize("kind", OBJECTS)
def test_silhouettes_differ_clearly_from_one_another(kind: str) -> None:
    def silhouette(name: str) -> Tensor:
        scene = replace(SCENES[0], object=name, motion="hovering", home=(0.0, 0.0), weather="clear", phase=0.0)
        mask = paint([replace(scene, terrain="sea" if name in AFLOAT else "hills")], [1.0]).mask[0, 0]
        rows, columns = (mask.sum(axis).nonzero()[:, 0] for axis in (1, 0))
        middle = int(rows.float().mean()), int(columns.float().mean())
        return torch.nn.functional.pad(mask, (24, 24, 24, 24))[middle[0] : middle[0] + 48, middle[1] : middle[1] + 48]

    own = silhouette(kind)
    for other in set(OBJECTS) - {kind}:
        shape = silhouette(other)
        assert torch.minimum(own, shape).sum() / torch.maximum(own, shape).sum() < 0.82, other
