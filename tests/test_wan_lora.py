"""LoRA files of several key styles, merged into the tiny Wan transformer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.command import pavdm
from support.wan import golden, write_checkpoint
from torch import Tensor

from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.models import registry
from pavdm_cli.models.adapter import Placement
from pavdm_cli.models.lora_file import LoraFile, parse_lora

RANK, ALPHA = 3, 6.0
TARGET = "blocks.1.self_attn.q.weight"
DOWN, UP = torch.randn(2, RANK, 40, generator=torch.Generator().manual_seed(0)).unbind(0)
UP = UP.T.contiguous()  # (40, RANK)
STYLES: dict[str, dict[str, Tensor]] = {
    "diffusers": {
        "transformer.blocks.1.attn1.to_q.lora_A.weight": DOWN,
        "transformer.blocks.1.attn1.to_q.lora_B.weight": 2 * UP,
    },
    "peft": {
        "base_model.model.blocks.1.self_attn.q.lora_A.default.weight": DOWN,
        "base_model.model.blocks.1.self_attn.q.lora_B.default.weight": 2 * UP,
    },
    "original": {
        "diffusion_model.blocks.1.self_attn.q.lora_down.weight": DOWN,
        "diffusion_model.blocks.1.self_attn.q.lora_up.weight": UP,
        "diffusion_model.blocks.1.self_attn.q.alpha": torch.tensor(ALPHA),
    },
    "musubi": {
        "lora_unet_blocks_1_self_attn_q.lora_down.weight": DOWN,
        "lora_unet_blocks_1_self_attn_q.lora_up.weight": UP,
        "lora_unet_blocks_1_self_attn_q.alpha": torch.tensor(ALPHA),
    },
    "difference": {"diffusion_model.blocks.1.self_attn.q.diff": 2 * UP @ DOWN},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wan") / "tiny")


def merged(folder: Path, *adapters: LoraFile) -> dict[str, Tensor]:
    placement = Placement(torch.device("cpu"), lora=adapters, load_vae=False)
    weights: dict[str, Tensor] = registry.find(str(folder)).load(placement, "weights").transformer.state_dict()
    return weights


@pytest.mark.parametrize("style", STYLES)
def test_every_key_style_is_merged_into_the_weight_it_names(style: str, folder: Path, tmp_path: Path) -> None:
    save_file(STYLES[style], tmp_path / "l.safetensors")
    weights, before = merged(folder, LoraFile(tmp_path / "l.safetensors", 0.5)), golden("dit_weights_original")
    torch.testing.assert_close(weights[TARGET], before[TARGET] + UP @ DOWN)
    assert all(torch.equal(weights[name], weight) for name, weight in before.items() if name != TARGET)


def test_several_files_add_up_and_biases_may_differ_too(folder: Path, tmp_path: Path) -> None:
    save_file(STYLES["peft"], tmp_path / "a.safetensors")
    save_file({"blocks.0.ffn.0.diff_b": torch.ones(72)}, tmp_path / "b.safetensors")
    adapters = (
        LoraFile(tmp_path / "a.safetensors"),
        LoraFile(tmp_path / "a.safetensors", -1),
        LoraFile(tmp_path / "b.safetensors", 2),
    )
    weights, before = merged(folder, *adapters), golden("dit_weights_original")
    torch.testing.assert_close(weights[TARGET], before[TARGET], rtol=0, atol=1e-5)
    torch.testing.assert_close(weights["blocks.0.ffn.0.bias"], before["blocks.0.ffn.0.bias"] + 2)


@pytest.mark.parametrize(
    "tensors",
    [
        {"blocks.9.self_attn.q.lora_A.weight": DOWN, "blocks.9.self_attn.q.lora_B.weight": UP},
        {"blocks.1.self_attn.q.lora_A.weight": DOWN},
        {"blocks.1.self_attn.q.lora_A.weight": DOWN[:, :20], "blocks.1.self_attn.q.lora_B.weight": UP},
        {"blocks.1.self_attn.q.lora_A.weight": DOWN[:2], "blocks.1.self_attn.q.lora_B.weight": UP},
        {**STYLES["musubi"], "lora_unet_blocks_1_self_attn_q.alpha": torch.ones(2)},
        {"lora_te_text_model.lora_down.weight": DOWN, "lora_te_text_model.lora_up.weight": UP},
        {"blocks.1.self_attn.q.weight": DOWN},
    ],
    ids=["another depth", "half of a pair", "another size", "two ranks", "no alpha", "another network", "no LoRA"],
)
def test_a_file_of_another_model_is_rejected(tensors: dict[str, Tensor], folder: Path, tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "l.safetensors")
    with pytest.raises(ModelError, match="does not fit this model"):
        merged(folder, LoraFile(tmp_path / "l.safetensors"))


def test_values_that_are_not_finite_are_rejected(folder: Path, tmp_path: Path) -> None:
    save_file({"blocks.1.self_attn.q.diff": torch.full((40, 40), torch.inf)}, tmp_path / "l.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        merged(folder, LoraFile(tmp_path / "l.safetensors"))


def test_a_scale_follows_the_file_after_a_colon(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b:c"):
        (tmp_path / name).touch()
    assert parse_lora(f"{tmp_path}/a.safetensors:0.8") == LoraFile(tmp_path / "a.safetensors", 0.8)
    assert parse_lora(f"{tmp_path}/a.safetensors").scale == 1
    assert parse_lora(f"{tmp_path}/b:c").path == tmp_path / "b:c"
    for wrong in (f"{tmp_path}/a.safetensors:11", f"{tmp_path}/none", "", f"{tmp_path}/a.safetensors:nan"):
        with pytest.raises(UsageError, match="--lora"):
            parse_lora(wrong)


def test_a_model_without_lora_says_so_and_a_missing_file_is_named() -> None:
    result = pavdm("generate", "a red ball", "--lora", "a.safetensors")
    assert (result.code, "pocket does not support --lora" in result.err) == (2, True)
    result = pavdm("generate", "a red ball", "--model", "wan2.1-t2v-1.3b", "--lora", "none.safetensors")
    assert (result.code, "there is no file none.safetensors" in result.err) == (2, True)
