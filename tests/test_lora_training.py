"""LoRA fine-tuning of a tiny Wan model: what is trained, stored, and merged again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support.wan import write_checkpoint
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.models.adapter import LoadedModel, Placement
from pavdm_cli.models.lora_file import LoraFile
from pavdm_cli.models.registry import find
from pavdm_cli.training.finetune.lora import adapter_bytes, add_adapters, export_adapters
from pavdm_cli.training.finetune.task import FinetuneTask
from pavdm_cli.training.loop import TrainConfig, train, trained_weights
from pavdm_cli.training.optimizer import adamw

pytestmark = pytest.mark.usefixtures("own_cache")
RANK = 3
LAYER = "blocks.1.self_attn.q"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("lora") / "tiny", "original")


def test_only_adapters_of_the_blocks_are_trained_and_they_change_nothing_at_first(tiny: Path) -> None:
    model = load(tiny)
    before = {name: value.clone() for name, value in model.transformer.state_dict().items()}
    expected_bytes = adapter_bytes(model, RANK)
    add_adapters(model, RANK)
    trained = trained_weights(model.transformer)
    assert {name.rpartition(".")[2] for name in trained} == {"down", "up"}
    assert all(name.startswith("blocks.") for name in trained)
    assert sum(4 * value.numel() for value in trained.values()) == expected_bytes
    for block in model.blocks:
        for layer in (module for module in block.modules() if isinstance(module, nn.Linear)):
            assert torch.equal(layer.weight, layer.parametrizations.weight.original)
    assert torch.equal(model.transformer.blocks[1].self_attn.q.weight, before[f"{LAYER}.weight"])


def test_the_written_file_merges_into_the_trained_weights(tiny: Path, tmp_path: Path) -> None:
    model = load(tiny)
    add_adapters(model, RANK)
    with torch.no_grad():
        for number, value in enumerate(trained_weights(model.transformer).values()):
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    path = export_adapters(model.transformer, tmp_path, {"method": "pa"}, main=True)
    merged = load(tiny, LoraFile(path)).transformer
    for (name, adapted), (_, plain) in zip(linear_layers(model.transformer), linear_layers(merged), strict=True):
        torch.testing.assert_close(plain.weight, adapted.weight, msg=name)


class RandomTask:
    """A task with random gradients for the weights of the blocks."""

    name = "LoRA"

    def __init__(self, folder: Path) -> None:
        loaded = load(folder)
        add_adapters(loaded, RANK)
        self.model = loaded.transformer

    def loss(self, step: int) -> Tensor:
        rng = torch.Generator().manual_seed(step)
        layers = [layer for _, layer in linear_layers(self.model) if hasattr(layer, "parametrizations")]
        return sum((layer.weight * torch.randn(layer.weight.shape, generator=rng)).mean() for layer in layers)

    def validate(self) -> dict[str, float]:
        return {}

    def write_sheet(self, path: Path) -> None:
        pass

    def export(self, folder: Path) -> Path:
        return export_adapters(self.model, folder, {}, main=True)


def test_a_resumed_run_writes_the_same_file_and_checkpoints_hold_adapters_only(tiny: Path, tmp_path: Path) -> None:
    def interrupt(step: int, metrics: dict[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    config = TrainConfig(4, lr=0.01, warmup=1, make_optimizers=adamw)
    whole = train(RandomTask(tiny), config, mkdir(tmp_path / "whole"), lambda step, metrics: None)
    with pytest.raises(KeyboardInterrupt):
        train(RandomTask(tiny), config, mkdir(tmp_path / "parts"), interrupt)
    stored = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert {name.rpartition(".")[2] for name in (*stored["model"], *stored["average"])} == {"down", "up"}
    resumed = train(RandomTask(tiny), config, tmp_path / "parts", lambda step, metrics: None)
    assert resumed.read_bytes() == whole.read_bytes()
    assert load_file(resumed)[f"diffusion_model.{LAYER}.lora_B.weight"].any()


def test_a_checkpoint_without_all_adapters_is_rejected(tiny: Path, tmp_path: Path) -> None:
    config = TrainConfig(1, lr=0.01, warmup=1, make_optimizers=adamw)
    train(RandomTask(tiny), config, tmp_path, lambda step, metrics: None)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del stored["model"][next(iter(stored["model"]))]
    torch.save(stored, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="holds another model"):
        train(RandomTask(tiny), config, tmp_path, lambda step, metrics: None)


def test_a_run_is_not_resumed_with_the_adapters_of_other_weights() -> None:
    batches, model = SimpleNamespace(method="pa"), SimpleNamespace(spec=SimpleNamespace(size=(128, 128), fps=24))

    def name(weights: str) -> str:
        return FinetuneTask(model, batches, None, None, {"base": weights}, lora_rank=4).name

    assert name("0123") == name("0123") != name("4567")


def mkdir(folder: Path) -> Path:
    folder.mkdir()
    return folder


def load(folder: Path, *lora: LoraFile) -> LoadedModel:
    return find(str(folder)).load(Placement(torch.device("cpu"), load_vae=False, lora=lora), "weights")


def linear_layers(transformer: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
