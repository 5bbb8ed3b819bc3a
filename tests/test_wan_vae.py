"""Wan's VAEs against recordings of the original code, and as streams that carry their state."""

from __future__ import annotations

import re

import pytest
import torch
from support.tiers import integration
from support.wan import golden, index, tiny_vae
from torch import Tensor

from pavdm_cli.models.memory_tracker import MemoryTracker
from pavdm_cli.models.streams import run_stream
from pavdm_cli.models.wan.config import WAN21, WAN22
from pavdm_cli.models.wan.names import original_vae_names
from pavdm_cli.models.wan.vae import WanVAE
from pavdm_cli.models.wan.vae_layers import CausalConv3d
from pavdm_cli.models.wan.vae_streams import REPLAY, decode_stream, encode_stream

TOLERANCE = {"rtol": 0, "atol": 1e-4}
versions = pytest.mark.parametrize("version", ["2.1", "2.2"])
cases = pytest.mark.parametrize(
    ("version", "name"),
    [("2.1", f"vae_{n}f") for n in (1, 5, 17, 33)] + [("2.2", f"vae22_{n}f") for n in (1, 9, 17)],
)


def frames_of(recorded: Tensor) -> Tensor:  # (B, 3, n, H, W), -1 to 1 -> (B, n, 3, H, W), 0 to 1
    return (recorded.transpose(1, 2) + 1) / 2


def latents(vae: WanVAE, count: int) -> Tensor:
    return torch.randn(1, count, vae.config.channels, 2, 3, generator=torch.Generator().manual_seed(0))


@cases
def test_frames_become_the_recorded_latents(version: str, name: str) -> None:
    case, vae = golden(name), tiny_vae(version)
    torch.testing.assert_close(
        run_stream(encode_stream(vae), frames_of(case["x"])).transpose(1, 2), case["z"], **TOLERANCE
    )


@cases
def test_latents_become_the_recorded_frames(version: str, name: str) -> None:
    case, vae = golden(name), tiny_vae(version)
    frames = run_stream(decode_stream(vae), case["z"].transpose(1, 2))
    torch.testing.assert_close(frames, frames_of(case["rec"]), **TOLERANCE)


def test_the_carried_features_are_the_recorded_ones() -> None:
    case, vae = golden("vae_stream"), tiny_vae("2.1")
    stream, features = decode_stream(vae), {}
    slots = [layer for layer in vae.decoder.modules() if isinstance(layer, CausalConv3d) or hasattr(layer, "time_conv")]
    for number, latent in enumerate(case["z"].transpose(1, 2).split(1, dim=1)):
        frames = stream.push(latent)
        torch.testing.assert_close(frames, frames_of(case[f"chunk.{number}"].clamp(-1, 1)), **TOLERANCE)
        features = stream.caches.caches[0].features
        for name, expected in case.items():
            if name.startswith(f"cache_after{number}."):
                result = features[slots[int(name[-2:])]]
                torch.testing.assert_close(result[:, :, -expected.shape[2] :], expected, **TOLERANCE)
    assert len(features) == len(slots) == 32


def test_the_encoder_in_pieces_gives_the_recorded_latents() -> None:
    case = golden("vae_stream_encode")
    stream = encode_stream(tiny_vae("2.1"))
    parts = [stream.push(piece) for piece in frames_of(case["x"]).split([2, 1, 4, 2], dim=1)]
    together = torch.cat([part for part in parts if part.shape[1]], dim=1)
    torch.testing.assert_close(together.transpose(1, 2), case["z"], **TOLERANCE)


@versions
def test_every_grouping_of_latents_gives_the_same_bits(version: str) -> None:
    vae = tiny_vae(version)
    z = latents(vae, 7)
    whole = decode_stream(vae).push(z)
    assert whole.shape[1] == 25
    for sizes in ([1] * 7, [2, 4, 1], [0, 3, 4]):
        stream = decode_stream(vae)
        parts = [stream.push(part) for part in z.split(sizes, dim=1)]
        assert torch.equal(torch.cat([part for part in parts if part.shape[1]], dim=1), whole)


@versions
def test_every_grouping_of_frames_gives_the_same_bits(version: str) -> None:
    vae = tiny_vae(version)
    frames = torch.rand(1, 14, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    whole = encode_stream(vae).push(frames)
    assert whole.shape[1] == 4  # 13 frames; the last one fills no latent
    stream = encode_stream(vae)
    parts = [stream.push(part) for part in frames.split([3, 3, 1, 7], dim=1)]
    assert torch.equal(torch.cat([part for part in parts if part.shape[1]], dim=1), whole)


@pytest.mark.parametrize("version", ["2.1", *integration("2.2")])
@torch.no_grad()
def test_38_latents_rebuild_the_state_to_the_bit_and_37_do_not(version: str) -> None:
    vae = tiny_vae(version)
    z = latents(vae, 41)[..., :1, :1]
    stream = decode_stream(vae)
    stream.push(z[:, :40])
    rest = stream.push(z[:, 40:])
    assert stream.replay == REPLAY == 38
    assert torch.equal(decode_stream(vae, z[:, 2:40]).push(z[:, 40:]), rest)
    assert not torch.equal(decode_stream(vae, z[:, 3:40]).push(z[:, 40:]), rest)


@versions
def test_memory_does_not_grow_with_the_video(version: str) -> None:
    vae = tiny_vae(version)

    def held(count: int) -> tuple[int, int]:
        stream, z = decode_stream(vae), latents(vae, count)
        with MemoryTracker() as live:
            for latent in z.split(1, dim=1):
                stream.push(latent)
        return live.now, live.peak

    assert held(3) == held(6)


@versions
def test_tiles_carry_a_state_each(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pavdm_cli.models.tiling.TILE_SIDES", range(4, 5))
    plain = tiny_vae(version)
    tiled = WanVAE(plain.config, tiled=True)
    tiled.load_state_dict(plain.state_dict())
    tiled.eval().requires_grad_(False)
    z = torch.randn(1, 3, plain.config.channels, 6, 5, generator=torch.Generator().manual_seed(0))
    whole, stream = decode_stream(tiled).push(z), decode_stream(tiled)
    assert torch.equal(torch.cat([stream.push(z[:, :1]), stream.push(z[:, 1:])], dim=1), whole)
    assert len(stream.caches.caches) == 4
    exact = decode_stream(plain).push(z)
    assert whole.shape == exact.shape
    assert 0 < (whole - exact).abs().mean() < 0.2
    assert run_stream(encode_stream(tiled), exact).shape == z.shape


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"), [(WAN21, 126_892_531, 194), (WAN22, 704_688_668, 196)], ids=["2.1", "2.2"]
)
def test_the_published_sizes_have_the_published_number_of_parameters(config, parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        weights = WanVAE(config).state_dict()
    assert (sum(weight.numel() for weight in weights.values()), len(weights)) == (parameters, tensors)


@pytest.mark.parametrize(
    ("file", "field"), [("vae_names", "map"), ("vae22_weights_diffusers", "original_to_diffusers")]
)
def test_both_layouts_name_the_same_parameters(file: str, field: str) -> None:
    names: dict[str, str] = index()[file][field]
    assert {original: theirs for theirs, original in original_vae_names(names.values()).items()} == names
    assert all(name == original for name, original in original_vae_names(names).items())
    assert not any(re.search(r"resnets|_blocks|quant", name) for name in names)
