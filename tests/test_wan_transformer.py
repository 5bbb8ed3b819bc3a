"""The Wan transformer against recordings of the original code, on its own recorded weights."""

from __future__ import annotations

import pytest
import torch
from support.wan import GOLDEN, TINY, golden, padded, tiny_transformer
from torch import Tensor

from pavdm_cli.models.wan.layers import Block, KeysValues
from pavdm_cli.models.wan.names import original_name
from pavdm_cli.models.wan.rope import rope_table
from pavdm_cli.models.wan.transformer import Conditioning, WanTransformer, is_float32
from pavdm_kernels.qk_norm_rope import apply_rope

TOLERANCE = {"rtol": 0, "atol": 2e-5}
FPS = {0: 16.0, 1: 24.0}  # by the recorded index


def run(model: WanTransformer, x: Tensor, t: Tensor, text: Tensor, fps: Tensor | float = 24.0) -> Tensor:
    """The output (B, C, F, h, w) for x in the same order; t (B,), (B, F) or (B, L) with a level for every number."""
    level_idx = torch.arange(t.numel(), dtype=torch.int32).view(len(x), -1)
    rates = torch.as_tensor(fps).repeat_interleave(t.numel() // torch.as_tensor(fps).numel())
    with torch.no_grad():
        modulation = model.embed_timesteps(t.flatten(), rates)
        return model(x.transpose(1, 2), level_idx, Conditioning(modulation, model.encode_text(text))).transpose(1, 2)


def apply_token_rope(x: Tensor, rope: Tensor) -> Tensor:  # (B, L, N, K), (L, K / 2, 2)
    return apply_rope(x.unsqueeze(2), rope).squeeze(2)


def rates_of(case: dict[str, Tensor]) -> Tensor:
    return torch.tensor([FPS[int(index)] for index in case["fps_index"]])


@pytest.mark.parametrize("name", ["dit_uniform", "dit_staircase", "dit_odd"])
def test_one_level_per_clip_or_per_frame_gives_the_recorded_output(name: str) -> None:
    case = golden(name)
    out = run(tiny_transformer(), case["x"], case["t"], case["text"], rates_of(case))
    torch.testing.assert_close(out, case["out"], **TOLERANCE)


def test_16_fps_and_a_checkpoint_without_fps_give_the_recorded_output() -> None:
    case = golden("dit_staircase_fps16_nofps")
    inputs = (case["x"], case["t"], case["text"])
    torch.testing.assert_close(run(tiny_transformer(), *inputs, 16.0), case["out_fps16"], **TOLERANCE)
    torch.testing.assert_close(run(tiny_transformer(False), *inputs), case["out_nofps"], **TOLERANCE)


def test_prompt_and_negative_prompt_in_one_batch_give_the_recorded_output() -> None:
    case = golden("dit_cfg")
    text = torch.cat([case["text_cond"], case["text_uncond"]])
    out = run(tiny_transformer(), case["x"].expand(2, -1, -1, -1, -1), case["t"].expand(2, -1), text)
    torch.testing.assert_close(out, case["out"], **TOLERANCE)
    guided = out[1:] + 6 * (out[:1] - out[1:])
    torch.testing.assert_close(guided, case["guided"], rtol=0, atol=2e-4)


def test_every_sample_of_a_batch_has_its_own_levels_and_frame_rate() -> None:
    case = golden("dit_batch_mixed")
    out = run(tiny_transformer(), case["x"], case["t"], case["text"], rates_of(case))
    torch.testing.assert_close(out, case["out_sane"], **TOLERANCE)


def test_zero_rows_after_the_prompt_are_attended_to() -> None:
    case = golden("dit_text512")
    text = padded(case["text_valid"])[None] if case["text_valid"].ndim == 2 else padded(case["text_valid"][0])[None]
    out = run(tiny_transformer(), case["x"], case["t"], text)
    torch.testing.assert_close(out, case["out"], **TOLERANCE)
    assert (out - case["out_unpadded"]).abs().max() > 0.1


def test_wan21_gives_the_recorded_output() -> None:
    case = golden("dit_wan21_uniform")
    text = torch.stack([padded(case["text0"]), padded(case["text1"])])
    out = run(tiny_transformer(False), case["x"], case["t"], text)
    torch.testing.assert_close(out, case["out"], **TOLERANCE)


@pytest.mark.parametrize("times", ["t_frame", "t_token"])
def test_wan22_gives_the_recorded_output_per_frame_and_per_token(times: str) -> None:
    case = golden("dit_wan22_pertoken")
    out = run(tiny_transformer(False), case["x"], case[times], padded(case["text0"])[None])
    torch.testing.assert_close(out, case["out"], **TOLERANCE)


class Causal:
    """Calls of a model that caches keys and values, block of frames after block."""

    def __init__(self, model: WanTransformer, text: Tensor, t: list[int]) -> None:
        self.model, self.levels = model, {time: row for row, time in enumerate(t)}
        self.conditions = Conditioning(
            model.embed_timesteps(torch.tensor(t), torch.tensor(24.0)), model.encode_text(text)
        )
        self.cached: list[KeysValues] | None = None

    def call(self, x: Tensor, t: list[int], start: int, *, keep: bool = False) -> Tensor:
        """The output; with `keep` the frames' keys and values are cached too."""
        index = torch.tensor([self.levels[time] for time in t], dtype=torch.int32)
        shared = (x.transpose(1, 2), index, self.conditions)
        out = self.model(*shared, start=start, kv_cache=self.cached)
        if keep:
            self.cached = self.model.prefill(*shared, start=start, kv_cache=self.cached)
        return out.transpose(1, 2)


@torch.no_grad()
def test_cached_keys_and_values_give_the_recorded_outputs() -> None:
    case = golden("dit_causal_kv")
    causal = Causal(tiny_transformer(False), padded(case["text0"])[None], [0, 625, 999])
    for call, (block, time) in enumerate(((0, 999), (0, 0), (1, 999), (1, 0), (2, 625))):
        frames = case["x"][:, :, 2 * block : 2 * block + 2]
        out = causal.call(frames, [time, time], 2 * block, keep=time == 0)
        torch.testing.assert_close(out, case[f"out.{call}"], **TOLERANCE)
    assert causal.cached is not None
    written = causal.cached[0][0].shape[1]  # the last recorded call is noisy: only its own place differs
    torch.testing.assert_close(causal.cached[0][0], case["cache.k0"][:, :written], **TOLERANCE)
    torch.testing.assert_close(causal.cached[-1][1], case["cache.v_last"][:, :written], **TOLERANCE)


@torch.no_grad()
def test_blocks_one_after_the_other_equal_the_block_causal_mask() -> None:
    case = golden("dit_block_causal")
    times = case["t"][0].tolist()
    causal = Causal(tiny_transformer(False), case["text"], sorted(set(times)))
    outs = [causal.call(case["x"][:, :, i : i + 2], times[i : i + 2], i, keep=True) for i in range(0, 6, 2)]
    torch.testing.assert_close(torch.cat(outs, dim=2), case["out"], **TOLERANCE)


def test_every_recorded_activation_is_met() -> None:
    case, model = golden("dit_staircase"), tiny_transformer()
    block = model.blocks[0]
    assert isinstance(block, Block)
    modules = {
        "time_embedding": model.time_embedding,
        "time_projection": model.time_projection,
        "fps_projection": model.fps_projection,
        "text_embedding": model.text_embedding,
        "block0.self_attn.q": block.self_attn.q,
        "block0.self_attn": block.self_attn.o,
        "block0.cross_attn": block.cross_attn.o,
        "block0.ffn": block.ffn,
        "block0": block,
        "block1": model.blocks[1],
        "head": model.head,
    }
    outputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: outputs.update({name: out[0] if isinstance(out, tuple) else out})
        )
        for name, module in modules.items()
    ]
    run(model, case["x"], case["t"], case["text"])
    for hook in hooks:
        hook.remove()
    assert outputs.keys() == modules.keys()
    norm = block.self_attn.norm_q  # its heads are rotated in one operation
    outputs["block0.self_attn.norm_q"] = norm(outputs["block0.self_attn.q"]).flatten(2)
    for name, output in outputs.items():
        expected = case[f"act.{name}"]
        output = output[: len(expected)] if name == "fps_projection" else output
        torch.testing.assert_close(output.reshape(expected.shape), expected, **TOLERANCE, msg=name)


def test_bfloat16_stays_within_one_percent_of_float32() -> None:
    case, weights = golden("dit_staircase_bf16"), golden("dit_weights_original")
    model = WanTransformer(TINY).requires_grad_(False)
    narrow = {name: w if is_float32(name) else w.bfloat16() for name, w in weights.items()}
    model.load_state_dict(narrow, assign=True)
    error = run(model, case["x"], case["t"], case["text"]).float() - case["out_fp32"]
    relative = (error.square().mean() / case["out_fp32"].square().mean()).sqrt()
    assert 1e-4 < relative < 0.01


def test_both_layouts_name_the_same_parameters() -> None:
    original, diffusers = golden("dit_weights_original"), golden("dit_weights_diffusers")
    renamed = {original_name(name): weight for name, weight in diffusers.items()}
    assert renamed.keys() == original.keys() == {original_name(name) for name in original}
    assert all(torch.equal(renamed[name], weight) for name, weight in original.items())
    assert original.keys() == WanTransformer(TINY).state_dict().keys()


def test_rotary_tables_meet_the_recorded_angles() -> None:
    case = golden("rope")
    for offset in (0, 7):
        out = apply_token_rope(case["q"], rope_table(20, offset, (2, 2, 3)))
        torch.testing.assert_close(out, case[f"out_offset{offset}"], rtol=0, atol=2e-6)
    far = apply_token_rope(case["q_far"], rope_table(20, 1000, (2, 2, 3)))
    torch.testing.assert_close(far, case["out_offset1000"], rtol=0, atol=2e-6)
    last = rope_table(20, 1021, (3, 1, 1))[:, :4].double()
    torch.testing.assert_close(last, torch.stack([case["cos_last"], case["sin_last"]], -1)[:, :4], rtol=0, atol=1e-7)
    wide = golden("rope128")
    torch.testing.assert_close(
        apply_token_rope(wide["q"], rope_table(128, 5, (3, 1, 2))), wide["out"], rtol=0, atol=2e-6
    )


def test_recordings_stay_below_8_megabytes() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 8_000_000
