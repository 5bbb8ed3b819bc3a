"""The network against outputs and activations recorded from the released code, on the same weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig

GOLDEN = Path(__file__).parent / "golden"
SMALL = STDiTConfig(hidden=64, depth=2, heads=4, in_channels=4, out_channels=8, text_width=32, text_length=12)
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def model() -> STDiT:
    small = STDiT(SMALL)
    small.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"), strict=True)
    return small.eval()


def run(model: STDiT, case: dict[str, Tensor], t: Tensor) -> Tensor:
    """All eight output channels, (B, C, T, H, W); t (B, T); masks and frame rates repeat block-wise."""
    batch, frames = t.shape
    repeat = batch // len(case["fps"])
    fps = case["fps"].repeat(repeat).repeat_interleave(frames)
    text = model.encode_text(case["y"].squeeze(1), case["mask"].repeat(repeat, 1))
    level_idx = torch.arange(batch * frames, dtype=torch.int32).view(batch, frames)
    size = (float(case["height"][0]), float(case["width"][0]))
    tokens: list[Tensor] = []
    hook = model.final_layer.register_forward_hook(lambda _m, _i, out: tokens.append(out))
    z = case["x"].transpose(1, 2)
    with torch.no_grad():
        velocity = model(z, level_idx, model.embed_timesteps(t.flatten(), fps), text, size=size)
    hook.remove()
    out = model.unpatchify(tokens[0], z.shape[-2:])
    assert torch.equal(velocity, out[:, :, :4])
    return out.transpose(1, 2)


@pytest.mark.parametrize("name", ["stdit3_pa_odd", "stdit3_pa_cfg"])
def test_output_equals_the_recorded_one(model: STDiT, name: str) -> None:
    case = load_file(GOLDEN / f"{name}.safetensors")
    torch.testing.assert_close(run(model, case, case["timestep"]), case["out"], rtol=0, atol=TOLERANCE)


def test_a_masked_frame_is_a_frame_at_level_zero(model: STDiT) -> None:
    case = load_file(GOLDEN / "stdit3_base_xmask.safetensors")
    is_noisy = case["x_mask"]  # (B, T)
    out = run(model, case, torch.where(is_noisy, case["timestep"][:, None], 0.0))
    pick = is_noisy[:, None, :, None, None].expand_as(out)
    torch.testing.assert_close(out[pick], case["out"][pick], rtol=0, atol=TOLERANCE)


def test_every_recorded_activation_is_met(model: STDiT) -> None:
    case = load_file(GOLDEN / "stdit3_pa_odd.safetensors")
    recorded = {name.removeprefix("act."): value for name, value in case.items() if name.startswith("act.")}
    pictures = recorded.pop("pos_embed")
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name in recorded:
        module = model.get_submodule(re.sub(r"^(spatial|temporal)", r"\1_blocks", name))
        hooks.append(module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out})))
    run(model, case, case["timestep"])
    for hook in hooks:
        hook.remove()
    for name, expected in recorded.items():
        output = outputs[name][0] if isinstance(outputs[name], tuple) else outputs[name]
        if name == "temporal.0.attn":
            output = output.transpose(1, 2)  # recorded pixel by pixel
        if name == "fps_embedder":
            output = output[:: len(output) // len(expected)]  # recorded once a sample
        torch.testing.assert_close(output.reshape(expected.shape), expected, rtol=0, atol=TOLERANCE, msg=name)
    size = (float(case["height"][0]), float(case["width"][0]))
    ours = model.embed(torch.zeros_like(case["x"].transpose(1, 2)), size) - model.x_embedder.proj.bias
    torch.testing.assert_close(ours[:1, 0], pictures, rtol=0, atol=TOLERANCE)
