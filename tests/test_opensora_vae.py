"""Open-Sora's VAE against recorded runs of the released one, and grouped against ungrouped encoding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pavdm_cli.attention import BACKENDS
from pavdm_cli.models.opensora import spatial_vae
from pavdm_cli.models.opensora.spatial_vae import SpatialConfig
from pavdm_cli.models.opensora.temporal_vae import TemporalConfig
from pavdm_cli.models.opensora.vae import OpenSoraVAE, VAEConfig, frame_count, sample_posterior
from pavdm_cli.models.tiling import run_in_tiles, tile_side

GOLDEN = Path(__file__).parent / "golden"
SMALL = VAEConfig(SpatialConfig((8, 8, 16, 16), groups=4), TemporalConfig(filters=8, blocks=2, groups=4))
CASES = [1, 17, 34]


@pytest.fixture(scope="module")
def vae() -> OpenSoraVAE:
    small = OpenSoraVAE(SMALL)
    small.load_state_dict(load_file(GOLDEN / "vae_small_weights.safetensors"), strict=True)
    return small.eval().requires_grad_(False)


def load(count: int) -> dict[str, Tensor]:
    """The recording; videos as (B, T, C, H, W)."""
    case = load_file(GOLDEN / f"vae_T{count}.safetensors")
    return {
        name: value.transpose(1, 2) if name in ("x", "z", "rec", "z_spatial") else value for name, value in case.items()
    }


def replay(case: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Draws the recorded noise, in order: of pictures, however many are encoded at a time, and of groups."""
    noise = [case[name] for name in sorted(case) if name.startswith("noise.")]
    pictures = iter(torch.cat([sample for sample in noise if sample.dim() == 4]))
    groups = iter([sample for sample in noise if sample.dim() == 5])

    def draw(mean: Tensor, deviation: Tensor) -> Tensor:
        sample = next(groups) if mean.dim() == 5 else torch.stack([next(pictures) for _ in mean])
        return mean + deviation * sample

    return draw


def same(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", CASES)
def test_latents_are_the_recorded_ones(vae, count):
    case = load(count)
    same(vae.encode((case["x"] + 1) / 2, replay(case)), case["z"])


@pytest.mark.parametrize("count", CASES)
def test_frames_are_the_recorded_ones(vae, count):
    case = load(count)
    same(vae.decode_raw(case["z"], count), case["rec"])
    same(vae.decode(case["z"], count), ((case["rec"] + 1) / 2).clamp(0, 1))


@pytest.mark.parametrize("count", CASES)
def test_both_posteriors_are_the_recorded_ones(vae, count):
    case = load(count)
    first = case["x"][:, :2].flatten(0, 1)
    same(spatial_vae.moments(vae.spatial, first), case["spatial_moments_first2"])
    group = case["z_spatial"][:, :17].transpose(1, 2)
    same(vae.temporal_vae.moments(group), case["temporal_moments_first_chunk"])


@pytest.mark.parametrize("latents", [5, 10, 13, 20])
def test_one_group_at_a_time_is_all_at_once_bit_for_bit(vae, latents):
    z = torch.randn(1, latents, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    apart = torch.cat([vae.decode(group) for group in z.split(5, dim=1)], dim=1)
    assert torch.equal(vae.decode(z), apart)


def test_groups_are_independent(vae):
    frames = torch.rand(1, 34, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    other = frames.clone()
    other[:, 17:] = 0
    assert torch.equal(vae.encode(frames)[:, :5], vae.encode(other)[:, :5])
    assert not torch.equal(vae.encode(frames)[:, 5:], vae.encode(other)[:, 5:])


def test_how_many_pictures_are_decoded_at_a_time_changes_nothing_but_the_last_bits(vae):
    z = torch.randn(1, 5, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    few = OpenSoraVAE(SMALL, vae_batch_size=1)
    few.load_state_dict(vae.state_dict())
    torch.testing.assert_close(few.decode(z), vae.decode(z), rtol=0, atol=1e-5)


def test_another_thread_that_allows_one_kernel_of_attention_does_not_disturb_decoding(vae, monkeypatch):
    """As steps beside the decoding do on a GPU: torch's switches are the whole process's."""
    attend, here = torch.nn.functional.scaled_dot_product_attention, threading.current_thread()
    inside, decoded, failed = threading.Event(), threading.Event(), list[str]()

    def attending(*args, **named):
        if threading.current_thread() is not here:
            inside.set()
            decoded.wait(0.5)  # long enough to be disturbed in
            return args[0]
        failed.extend([] if torch.backends.cuda.math_sdp_enabled() else ["no kernel is left"])
        return attend(*args, **named)

    expected = vae.decode(latents(2, 3))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attending)
    step = threading.Thread(target=BACKENDS["cudnn"].load(), args=(*torch.ones(3, 1, 2, 1, 8), None))
    step.start()
    assert inside.wait(60)
    result = vae.decode(latents(2, 3))
    decoded.set()
    step.join()
    assert failed == []
    assert torch.equal(result, expected)


def test_large_pictures_are_worked_on_one_at_a_time(vae):
    sizes = [(240, 426), (480, 848), (720, 1280), (64, 64)]
    assert [vae._batch_size(height // 8, width // 8) for height, width in sizes] == [4, 1, 1, 4]


@pytest.fixture
def tiled(vae: OpenSoraVAE) -> Iterator[OpenSoraVAE]:
    vae.tiled = True
    yield vae
    vae.tiled = False


def test_pictures_of_many_tiles_are_worked_on_one_at_a_time(tiled):
    assert [tiled._batch_size(*size) for size in ((30, 53), (90, 160), (18, 32))] == [1, 1, 4]


def latents(height: int, width: int, count: int = 5) -> Tensor:
    return torch.randn(1, count, 4, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.integration
def test_what_fits_into_one_tile_is_the_same_bit_for_bit(tiled):
    z = latents(18, 32)
    both = tiled.decode(z), tiled.encode(tiled.decode(z))
    tiled.tiled = False
    assert torch.equal(tiled.decode(z), both[0])
    assert torch.equal(tiled.encode(tiled.decode(z)), both[1])


def test_tiles_are_pictures_of_their_own_and_blended_where_they_overlap(vae):
    z, side = latents(20, 53)[0], tile_side(20, 53)
    whole = run_in_tiles(partial(spatial_vae.decode, vae.spatial), z, out_scale=8)
    step, blend = 8 * side * 3 // 4, 8 * side // 4
    left, right = (spatial_vae.decode(vae.spatial, z[..., at : at + side]) for at in (0, side * 3 // 4))
    assert whole.shape == (5, 3, 160, 424)
    same(whole[..., :step], left[..., :step])
    same(whole[..., step + blend :], right[..., blend:])
    weight = torch.arange(blend) / blend
    seam = left[..., step : step + blend] * (1 - weight) + right[..., :blend] * weight
    same(whole[..., step : step + blend], seam)


@pytest.mark.integration
def test_a_picture_of_many_tiles_is_nearly_the_untiled_one(tiled):
    z = latents(45, 80, 1)
    blended = tiled.decode_raw(z, 1)
    code = tiled.encode(blended)
    tiled.tiled = False
    whole = tiled.decode_raw(z, 1)
    assert blended.shape == whole.shape == (1, 1, 3, 360, 640)
    assert not torch.equal(blended, whole)
    assert (blended - whole).square().mean() < 0.01 * whole.var()
    assert (code - tiled.encode(blended)).square().mean() < 0.02 * code.var()


@pytest.mark.integration
def test_in_tiles_too_one_group_at_a_time_is_all_at_once_bit_for_bit(tiled):
    z = latents(12, 53, 10)
    apart = torch.cat([tiled.decode(group) for group in z.split(5, dim=1)], dim=1)
    assert torch.equal(tiled.decode(z), apart)


@pytest.mark.parametrize("size", [(18, 32), (30, 53), (45, 80), (60, 106), (90, 160), (160, 160)])
def test_no_tile_is_a_sliver(size):
    side = tile_side(*size)
    assert side % 4 == 0
    for length in size:
        starts = range(0, length, side * 3 // 4)
        assert len(starts) == 1 or length - starts[-1] >= 0.4 * side


def test_without_noise_a_clip_has_one_code(vae):
    frames = torch.rand(2, 18, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    assert torch.equal(vae.encode(frames), vae.encode(frames))
    assert vae.encode(frames).shape == (2, 6, 4, 2, 3)


@pytest.mark.parametrize(
    ("frames", "count"), [(1, 1), (16, 4), (17, 5), (18, 6), (34, 10), (51, 15), (102, 30), (119, 35), (1445, 425)]
)
def test_frames_and_latents_are_counted_as_published(frames, count):
    assert frame_count(count) <= frames < frame_count(count + 1)


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (17, 5), (18, 6), (34, 10)])
def test_a_clip_has_as_many_latents_as_published(vae, frames, count):
    assert vae.encode(torch.zeros(1, frames, 3, 8, 8)).shape[1] == count


def test_a_posterior_is_never_wider_or_narrower_than_it_may_be():
    moments = torch.tensor([[1.0, 90.0], [1.0, -90.0]])
    recorded: list[Tensor] = []
    sample_posterior(moments, lambda mean, deviation: (recorded.append(deviation), mean)[1])
    torch.testing.assert_close(recorded[0].flatten(), torch.tensor([10.0, -15.0]).exp())


def test_parameters_are_those_of_the_published_weights():
    with torch.device("meta"):
        real = OpenSoraVAE(VAEConfig())
    lines = (GOLDEN / "vae_params.txt").read_text().splitlines()[1:]
    assert {f"{name} {list(value.shape)}" for name, value in real.state_dict().items()} == set(lines)
    assert sum(p.numel() for p in real.parameters()) == 393_341_007
