"""The detail dial of the rendered world: up to a half a plain picture, then clouds, stars, foam, texture and snow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.scenes import PLAIN, RICH, SCENES, paint
from torch import Tensor

from pavdm_cli.pocket_world.value_noise import cell_noise, fractal_noise, smoothstep, value_noise
from pavdm_cli.pocket_world.vocabulary import AFLOAT, TERRAINS, TIMES


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.5), (0.5, 0.0)])
def test_up_to_half_detail_changes_only_the_height_of_waves(low, high):
    dry = [scene for scene in SCENES if scene.terrain != "sea"][:12]
    wet = [scene for scene in SCENES if scene.terrain == "sea"][:4]
    assert torch.equal(paint(dry, [1.0], low).frames, paint(dry, [1.0], high).frames)
    change = (paint(wet, [1.0], low).frames - paint(wet, [1.0], high).frames).abs()
    assert 0 < change.max() < 0.1


def texture(frames: Tensor) -> Tensor:
    """How much neighboring pixels differ, a scene each."""
    return frames.diff(dim=-1).abs().mean((1, 2, 3, 4)) + frames.diff(dim=-2).abs().mean((1, 2, 3, 4))


@pytest.mark.parametrize("terrain", TERRAINS)
@pytest.mark.parametrize("time", TIMES)
def test_more_detail_is_a_richer_picture_of_the_same_scene(time, terrain):
    scenes = [replace(s, time=time, terrain=terrain, weather="clear") for s in SCENES if s.object not in AFLOAT][:4]
    plain, some, much = (paint(scenes, [1.0], detail) for detail in (0.5, 0.7, 1.0))
    assert torch.equal(plain.mask, much.mask)
    assert (texture(much.frames) > texture(some.frames)).all()
    assert (texture(some.frames) > texture(plain.frames)).all()
    assert (much.frames - plain.frames).abs().mean() < 0.08
    seen = plain.mask[:, :, None] > 0.9999
    torch.testing.assert_close(much.frames * seen, plain.frames * seen, rtol=0, atol=1e-6)


def test_a_rich_night_has_many_stars_and_a_plain_one_a_few():
    def peaks(time: str, detail: float) -> int:
        """Pixels that outshine their surroundings, of the sky above all else and to the right of the moon."""
        scenes = [
            replace(s, time=time, motion="hovering", weather="clear") for s in SCENES[:8] if s.object not in AFLOAT
        ]
        gray = paint(scenes, [0.0], detail, (128, 192)).frames[:, 0, :, :20, 80:].mean(1)
        return int((gray - torch.nn.functional.avg_pool2d(gray, 5, stride=1, padding=2) > 0.1)[:, 2:-2, 2:-2].sum())

    assert peaks("night", RICH) > 1.5 * peaks("night", PLAIN) > 20
    assert peaks("day", PLAIN) == 0


def test_clouds_of_a_rich_day_drift():
    scene = replace(SCENES[0], time="day", camera="right", weather="clear", home=(9.0, 0.0))
    rich, plain = (paint([scene], [0.0, 20.0], detail).frames[0, :, :, :20] for detail in (RICH, PLAIN))
    assert (rich[0] - rich[1]).abs().max() > 0.1
    assert torch.equal(plain[0], plain[1])


def test_grain_is_even_from_0_to_1_and_the_same_wherever_it_is_computed():
    column, row = torch.arange(-300, 300)[None], torch.arange(-300, 300)[:, None]
    values = cell_noise(column, row, torch.tensor(7))
    assert 0 <= values.min() < values.max() < 1
    assert values.mean().item() == pytest.approx(0.5, abs=0.005)
    assert values.var().item() == pytest.approx(1 / 12, abs=0.002)
    assert torch.equal(values[17:19, 40:50], cell_noise(column[:, 40:50], row[17:19], torch.tensor(7)))
    for other in (values.roll(1, 0), values.roll(1, 1), cell_noise(column, row, torch.tensor(8))):
        assert abs(torch.corrcoef(torch.stack([values.flatten(), other.flatten()]))[0, 1]) < 0.01


def test_grain_is_smooth_between_its_cells():
    x = torch.linspace(-3, 3, 6001)[None]
    for texture_of in (value_noise, fractal_noise):
        values = texture_of(x, torch.full((1, 1), 0.3), torch.tensor(5))
        assert values.diff().abs().max() < 0.006
        assert 0 <= values.min() < values.max() <= 1
    corner = value_noise(torch.tensor([2.0]), torch.tensor([-4.0]), torch.tensor(5))
    assert torch.equal(corner, cell_noise(torch.tensor([2]), torch.tensor([-4]), torch.tensor(5)))
    assert smoothstep(torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0]), 1.0, 2.0).tolist() == [0, 0, 0.5, 1, 1]
