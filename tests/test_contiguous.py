"""Weights are contiguous in memory, however they are loaded, created or changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pytest
import torch
from safetensors import safe_open
from support.models import find, load
from torch import Tensor, nn

from pavdm_cli.hub import safetensors_file
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.opensora import config, loaded
from pavdm_cli.models.opensora.spatial_vae import SpatialConfig
from pavdm_cli.models.opensora.temporal_vae import TemporalConfig
from pavdm_cli.models.opensora.vae import VAEConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels
from pavdm_cli.sampling.schedule import pa

CPU = torch.device("cpu")
SMALL = replace(config.XL2, hidden=64, depth=2, heads=4)
VAE = VAEConfig(SpatialConfig((8, 8, 16, 16), groups=4), TemporalConfig(filters=8, blocks=1, groups=4))
SOURCES = ["pocket", "pocket, made up", "Open-Sora", "Open-Sora, made up"]


class Strided:
    """A file of weights, each of which it gives transposed in memory."""

    def __init__(self, path: Path, framework: str) -> None:
        self.file = safe_open(path, framework)

    def __enter__(self) -> Strided:
        self.file.__enter__()
        return self

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.file.__exit__(*raised)

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self.file, name)

    def get_tensor(self, name: str) -> Tensor:
        value = self.file.get_tensor(name)
        return value.movedim(0, -1).contiguous().movedim(-1, 0) if value.ndim > 1 else value


@pytest.fixture(params=[safe_open, Strided], ids=["rows", "columns"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files give weights as they are written, or transposed."""
    monkeypatch.setattr(safetensors_file, "safe_open", request.param)


def opened(source: str, folder: Path, engine: ExecutionConfig, monkeypatch: pytest.MonkeyPatch) -> ModelRunner:
    monkeypatch.setattr(config, "XL2", SMALL)
    monkeypatch.setattr(loaded, "XL2", SMALL)
    monkeypatch.setattr(loaded, "VAEConfig", lambda: VAE)
    name = "pocket" if "pocket" in source else str(folder)
    precision = "bf16" if name == "pocket" else ""
    return load(
        find(name), CPU, init="random" if "made up" in source else "weights", execution=engine, precision=precision
    )


def scattered(model: ModelRunner) -> list[str]:
    assert isinstance(model.vae, nn.Module)
    parts = (model.transformer, model.vae)
    return [name for part in parts for name, value in part.state_dict().items() if not value.is_contiguous()]


@pytest.mark.usefixtures("reading", "own_cache")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("offload", ["none", "sequential"])
def test_every_weight_is_contiguous_once_a_prompt_is_bound(source, offload, folder, monkeypatch):
    engine = ExecutionConfig(offload=offload, context_cache="reuse")
    model = opened(source, folder, engine, monkeypatch)
    assert scattered(model) == []
    model.denoiser("a red balloon over green hills", pa(6, 6, 2), noise_levels(linear_sigmas(6)), 2.0, engine)
    parts = (model.transformer, model.vae)
    linear = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) > 20
    for layer in linear:
        assert layer.weight.is_contiguous()
        assert layer.bias is None or layer.bias.is_contiguous()
