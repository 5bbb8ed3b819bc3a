"""CPU offload: the same video to the bit, and never more memory on the device than planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.requests import make_request
from support.tiers import integration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pavdm_cli.errors import UsageError
from pavdm_cli.generation import memory_plan, pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import offload
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.memory_tracker import MemoryTracker
from pavdm_cli.models.offload import BlockLoader, OffloadedModule, PackedWeights, streamed_weights
from pavdm_cli.models.runner import ModelRunner

pytestmark = pytest.mark.usefixtures("own_cache")

PROMPT = "a red balloon drifts over green hills"
MODES = ("model", "sequential")


def job(model: Path | str, frames: int = 17 * 2, size: Any = (64, 72), **switches: object) -> GenerationConfig:
    options = {"model": str(model), "steps": 6, "seed": 1, "device": "cpu"} | switches
    return resolve(make_request(PROMPT, frames=frames, size=size, **options))


def frames(config: GenerationConfig) -> np.ndarray:
    return np.concatenate(list(pipeline.generate_frames(config, pipeline.open_model(config))))


@pytest.mark.parametrize(
    "how", [{"context_cache": "reuse"}, *integration({}, {"cfg_batching": "sequential", "cache_modulation": False})]
)
def test_the_video_is_the_same_to_the_bit(how, folder):
    plain = frames(job(folder, **how))
    assert plain.std() > 1
    for mode in MODES:
        assert np.array_equal(frames(job(folder, offload=mode, **how)), plain), mode


def test_pocket_too_can_be_offloaded():
    plain = frames(job("pocket", 4, None))
    for mode in MODES:
        assert np.array_equal(frames(job("pocket", 4, None, offload=mode)), plain)


def test_a_clip_is_encoded_by_weights_that_come_for_it(folder):
    clip = torch.rand(34, 3, 64, 72, generator=torch.Generator().manual_seed(2))
    starts = [
        pipeline.state_after_clip(config, pipeline.open_model(config), clip, False)
        for config in (job(folder), job(folder, offload="model"))
    ]
    assert torch.equal(starts[0].context, starts[1].context)


class OnDevice(TorchDispatchMode):
    """Stands for a device that cannot read the host's memory: only copies may touch what waits there."""

    COPIES = ("copy_", "_to_copy", "detach", "alias", "view", "slice", "unbind")

    def __init__(self, waiting: list[torch.Tensor]) -> None:
        super().__init__()
        self.waiting = {piece.untyped_storage()._cdata for piece in waiting}
        self.wrong: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata in self.waiting:
                self.wrong += [] if name in self.COPIES else [name]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[PackedWeights]:
    """All that is packed on the host from now on."""
    packs: list[PackedWeights] = []
    create = PackedWeights.__init__

    def note(pack: PackedWeights, *args: Any) -> None:
        create(pack, *args)
        packs.append(pack)

    monkeypatch.setattr(PackedWeights, "__init__", note)
    return packs


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> list[BlockLoader]:
    """All that loads blocks from now on."""
    loaders: list[BlockLoader] = []
    create = BlockLoader.__init__

    def note(loader: BlockLoader, *args: Any) -> None:
        create(loader, *args)
        loaders.append(loader)

    monkeypatch.setattr(BlockLoader, "__init__", note)
    return loaders


def used_from_the_host(config: GenerationConfig, model: ModelRunner, packs: list[PackedWeights]) -> list[str]:
    with OnDevice([pack.host for pack in packs]) as device:
        for _ in pipeline.generate_frames(config, model):
            pass
    return device.wrong


@pytest.mark.parametrize("cache", ["reuse", *integration("recompute")])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.integration
def test_nothing_is_computed_with_weights_that_wait(mode, cache, folder, packs):
    config = job(folder, offload=mode, context_cache=cache)
    model = pipeline.open_model(config)
    assert len(packs) > 5
    assert used_from_the_host(config, model, packs) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.integration
def test_a_turn_that_is_forgotten_would_be_seen(mode, folder, monkeypatch, packs):
    config = job(folder, offload=mode)
    model = pipeline.open_model(config)
    monkeypatch.setattr(OffloadedModule, "onload", lambda self: None)
    assert "convolution" in used_from_the_host(config, model, packs)


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["sequential", *integration("model")])
def test_no_more_is_on_the_device_than_the_plan_says(mode, folder, loaders):
    config = job(folder, 17 * 8, offload=mode)
    plan = memory_plan.estimate_plan(config)
    model = pipeline.open_model(config)
    there = 0
    for loader in loaders:  # what stays, and both buffers
        stays = sum(weight.nbytes for weight in model.transformer.parameters())
        away = [weight for block in model.model.blocks for weight in streamed_weights(block, model.model.resident)]
        there = stays - sum(w.nbytes for w in away) + sum(buffer.data.nbytes for buffer in loader.buffers)
    with MemoryTracker() as live:
        for _ in pipeline.generate_frames(config, model):
            pass
    parts = {
        name: part for name, part in plan.devices[0].parts.items() if "offloaded" not in name and "lib" not in name
    }
    most = max(sum(part[i] for part in parts.values()) for i in (2, 3))
    assert 0.7 * most < live.peak + there < 1.1 * most
    assert len(loaders) == (mode == "sequential")
    assert len(model.model.blocks) == 4


def test_one_block_at_a_time_is_bound_and_the_next_is_copied_ahead(folder, loaders):
    model = pipeline.open_model(job(folder, offload="sequential"))
    (loader,), blocks = loaders, model.model.blocks
    hosts = {pack.host.data_ptr() for pack in loader.packs}

    def bound() -> list[int]:
        return [
            number
            for number, block in enumerate(blocks)
            if all(w.untyped_storage().data_ptr() not in hosts for w in streamed_weights(block, model.model.resident))
        ]

    assert bound() == []
    for number in (0, 1, 2, 3, 0, 2, 2, 1):
        loader.onload(number)
        assert bound() == [number]
        pack, ahead = loader.packs[number], loader.packs[(number + 1) % 4]
        assert torch.equal(loader.buffers[loader.active].data[: pack.host.numel()], pack.host)
        assert torch.equal(loader.buffers[1 - loader.active].data[: ahead.host.numel()], ahead.host)
    loader.offload()
    assert bound() == []


def test_graphs_and_offloading_are_rejected_together():
    with pytest.raises(UsageError, match="--cuda-graphs on cannot be combined with --offload"):
        ExecutionConfig(cuda_graphs="on", offload="sequential")
    with pytest.raises(UsageError, match="--offload must be one of none, model, sequential"):
        ExecutionConfig(offload="disk")
    assert "--offload" in ExecutionConfig(offload="model").graph_conflict


@pytest.mark.parametrize(
    ("device", "offload", "overlap"), [("cuda", "none", "on"), ("cuda", "model", "off"), ("cpu", "none", "off")]
)
def test_decoding_overlaps_the_steps_on_a_gpu_that_holds_all_weights(device, offload, overlap, folder, monkeypatch):
    monkeypatch.setattr("pavdm_cli.models.devices.pick_device", lambda *names: torch.device(device))
    monkeypatch.setattr("pavdm_cli.attention.machine_of", lambda device: None)
    monkeypatch.setattr("pavdm_cli.attention.check_backend", lambda *args: None)
    assert job(folder, offload=offload).execution.overlap_decode == overlap


def test_a_place_for_blocks_is_not_filled_while_what_was_there_before_is_read(monkeypatch):
    class Mark:
        recorded = False

        def record(self) -> None:
            self.recorded = True

    monkeypatch.setattr(offload, "_event", lambda device: Mark())
    buffer = offload.StagingBuffer(8, torch.device("cpu"))
    assert buffer.read_event.recorded
    assert not buffer.filled_event.recorded
