"""Sharded weights: every process holds a share, and the frames are those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from support.sharded import KINDS, tiny_config, write_tiny
from support.tiers import long

from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.generation import memory_advice, memory_parts, memory_plan, memory_report, pipeline
from pavdm_cli.generation.advice import find_ineffective_options
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.processes import configure_processes
from pavdm_cli.models.adapter import Placement
from pavdm_cli.models.distributed import is_sharded, local_rows
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.lora_file import LoraFile
from pavdm_cli.models.meta_model import module_bytes
from pavdm_cli.models.open_runner import placement_for
from pavdm_cli.models.sharding import sharded_bytes, with_sharding

pytestmark = pytest.mark.usefixtures("own_cache")
RANK = Path(__file__).parent / "support" / "sharded_rank.py"
SHARDED = ExecutionConfig(processes=2, shard_weights="on")


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A process group of this process alone: FSDP works as in any other, and gathers from itself."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=30))
    yield
    dist.destroy_process_group()


SLOWER = [{"cache_modulation": False, "cache_text": False}, {"context_cache": "recompute"}, {"precision": "bf16"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "switches", [{}, *(pytest.param(options, marks=pytest.mark.integration) for options in SLOWER)]
)
def test_sharded_weights_give_the_same_latents(kind, switches, tmp_path, group_of_one, monkeypatch):
    config = tiny_config(write_tiny(tmp_path / "tiny", kind), kind, **switches)
    model = pipeline.open_model(config)
    expected = torch.cat(list(pipeline.sample_latents(config, model)), dim=1)
    sharded = with_sharding(model, SHARDED)
    assert all(is_sharded(weight) for weight in sharded.transformer.parameters())
    latents = torch.cat(list(pipeline.sample_latents(config, sharded)), dim=1)
    assert all(is_sharded(weight) for weight in sharded.transformer.parameters())  # nothing stays gathered
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_a_float32_copy_of_sharded_weights_is_whole(kind, tmp_path, group_of_one):
    config = tiny_config(write_tiny(tmp_path / "tiny", kind), kind, precision="bf16")
    model = pipeline.open_model(config)
    before = {name: weight.float().clone() for name, weight in model.transformer.state_dict().items()}
    copy = with_sharding(model, SHARDED).upcast("transformer")
    assert not copy.sharded
    after = copy.transformer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.cat(list(pipeline.sample_latents(config, copy)), dim=1).isfinite().all()


def run_two(tmp_path: Path, kind: str, *words: str) -> list[Any]:
    """What the two processes print."""
    folder = write_tiny(tmp_path / "tiny", kind)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    place |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(RANK.parents[1])}
    command = [sys.executable, str(RANK), str(folder), kind, *words]
    ranks = [
        subprocess.Popen(command, env=os.environ | place | {"RANK": rank}, stdout=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    return [json.loads(rank.communicate(timeout=240)[0]) for rank in ranks]


@pytest.mark.integration
def test_a_process_that_fails_in_a_step_says_why_to_rank_0(tmp_path):
    main, _ = run_two(tmp_path, "wan", "fail")
    assert main["error"].startswith("process 1 failed: ZeroDivisionError")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["wan", *long("opensora")])
def test_two_processes_read_and_hold_half_each_and_agree(kind, tmp_path):
    main, (other, num_read) = run_two(tmp_path, kind)
    assert main["difference"] <= 1e-5 * main["largest"]
    padding = 0.03 * main["whole"]  # of weights with an odd number of rows
    assert main["share"] == pytest.approx(main["whole"] / 2, abs=padding)
    assert other == pytest.approx(main["whole"] / 2, abs=padding)
    assert 0.45 * main["whole"] < num_read < 0.56 * main["whole"]  # with buffers, which are not shared


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_counts_a_share_and_what_is_gathered(kind, tmp_path):
    model = memory_plan.meta_model_of(tiny_config(write_tiny(tmp_path / "tiny", kind), kind)).model
    share, gathered = sharded_bytes(model, 2)
    whole = module_bytes(model.transformer)
    assert whole / 2 <= share < 0.6 * whole
    assert gathered < 2 * whole
    assert sharded_bytes(model, 4)[0] < share


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free memory of a GPU that is not there."""
    free = {"cuda": 10**12, "cpu": 10**12}
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: free[device.type])
    monkeypatch.setattr(memory_plan, "RESERVED", {"cuda": 0, "cpu": 0})
    return free


def on_gpu(folder: Path, **values: Any) -> GenerationConfig:
    config = tiny_config(write_tiny(folder, "wan"), "wan", **{"shard_weights": "auto", **values})
    return replace(config, execution=replace(config.execution, device="cuda"))


def test_weights_are_sharded_only_if_a_gpu_cannot_hold_them(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(memory_plan, "text_bytes", lambda config: {})
    config = on_gpu(tmp_path / "tiny")
    together = configure_processes(config, 2)
    assert (together.execution.shard_weights, together.execution.sharded) == ("off", False)
    sharded = configure_processes(replace(config, execution=replace(config.execution, shard_weights="on")), 2)
    whole, less = (max(memory_plan.estimate_plan(plan).devices[0].needs) for plan in (together, sharded))
    assert whole > less
    # decoding needs more than denoising in this tiny model; the weights alone decide here
    monkeypatch.setattr(
        memory_parts, "transformer_bytes", lambda model, execution: (10**9 // (1 + execution.sharded), 0)
    )
    gpu["cuda"] = 7 * 10**8
    together = configure_processes(config, 2)
    assert together.execution.sharded
    assert "weights are sharded: the transformer does not fit on one GPU" in together.notes
    assert memory_plan.choose_plan(together).fits
    off = configure_processes(replace(config, execution=replace(config.execution, shard_weights="off")), 2)
    assert "--shard-weights on saves 0.5 GB" in memory_advice.build_memory_error(memory_plan.choose_plan(off)).hint


def test_the_table_has_a_row_for_every_gpu(tmp_path, gpu):
    plan = memory_plan.estimate_plan(configure_processes(on_gpu(tmp_path / "tiny", shard_weights="on"), 2))
    rows = {row[0]: row[1:] for row in memory_report.format_rows(plan)}
    assert {"total on cuda of rank 0", "total on cuda of each other rank", "gathered weights"} <= rows.keys()
    assert memory_report.plan_to_json(plan)["settings"]["shard_weights"] == "on"


def test_sharded_weights_allow_any_number_of_processes(tmp_path):
    config = tiny_config(write_tiny(tmp_path / "tiny", "wan"), "wan", guidance=1.0)
    assert configure_processes(config, 3).execution.sharded
    with pytest.raises(UsageError, match="a single forward pass"):
        configure_processes(config.with_execution(shard_weights="off"), 2)


def test_sharded_weights_need_processes_and_no_offloading(tmp_path):
    config = tiny_config(write_tiny(tmp_path / "tiny", "wan"), "wan")
    assert not configure_processes(config, 1).execution.sharded
    assert any("--shard-weights has no effect in one process" in line for line in find_ineffective_options(config))
    with pytest.raises(UsageError, match="--shard-weights on cannot be combined with --offload"):
        ExecutionConfig(shard_weights="on", offload="model")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_loaded_after_sharding_give_the_same_latents(kind, tmp_path, group_of_one):
    config = tiny_config(write_tiny(tmp_path / "tiny", kind), kind)
    whole = pipeline.open_model(config)
    expected = torch.cat(list(pipeline.sample_latents(config, whole)), dim=1)
    placement = replace(placement_for(config.execution), shards=2)
    model = config.video_model.load(placement, "weights")
    assert all(weight.is_meta for weight in model.transformer.parameters())
    sharded = with_sharding(replace(whole, model=model), SHARDED)
    assert all(is_sharded(weight) for weight in sharded.transformer.parameters())
    latents = torch.cat(list(pipeline.sample_latents(config, sharded)), dim=1)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rows", "processes"), [(8, 2), (7, 3), (2, 3), (1, 4), (5, 5)])
def test_the_shares_are_those_of_fsdp(rows, processes, monkeypatch):
    weight = torch.arange(rows)
    monkeypatch.setattr(dist, "get_world_size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        shares.append(weight[local_rows(weight)].tolist())
    chunks = [chunk.tolist() for chunk in weight.chunk(processes)]
    assert shares == chunks + [[]] * (processes - len(chunks))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit_are_rejected_before_they_are_sharded(kind, tmp_path):
    folder = write_tiny(tmp_path / "tiny", kind)
    config = tiny_config(folder, kind)
    for file in (folder / "transformer").glob("*.safetensors"):
        tensors = load_file(file)
        name = max(tensors, key=lambda key: tensors[key].numel())
        save_file(tensors | {name: tensors[name][:-1].clone()}, file)
    with pytest.raises(ModelError, match="does not fit"):
        config.video_model.load(replace(placement_for(config.execution), shards=2), "weights")


def test_shards_need_room_on_the_gpu_and_other_weights_on_the_host():
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    sharded = Placement(cuda, storage=cpu, shards=4)
    assert sharded.bytes_by_device(800, 10) == {cuda: 200, cpu: 10}
    merged = replace(sharded, lora=(LoraFile(Path("a.safetensors"), 1.0),))
    assert merged.bytes_by_device(800, 10) == {cpu: 810}
    assert Placement(cuda).bytes_by_device(800, 10) == {cuda: 810}
    assert Placement(cpu, storage=cpu, shards=2).bytes_by_device(800, 10) == {cpu: 410}
