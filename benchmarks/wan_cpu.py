"""Wan on a CPU against diffusers: a block of the 1.3B model at full width, and a tiny model from noise to frames.

Both run on the same random weights, one after the other in every round, so that a busy machine slows both; the ratio is
the median over rounds. Both call torch's matmuls and attention, whose share of the time limits the ratio. Rows go to
benchmarks/results/wan-cpu.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKLWan, SkyReelsV2DiffusionForcingPipeline, SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2RotaryPosEmbed, SkyReelsV2TransformerBlock
from diffusers.schedulers import UniPCMultistepScheduler
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pavdm_cli.attention import TORCH, attend
from pavdm_cli.bench.ceilings import ceilings
from pavdm_cli.bench.env import environment
from pavdm_cli.models.adapter import DenoiserConfig, TextEmbedding
from pavdm_cli.models.wan.config import TEXT_LENGTH, VAEConfig, WanConfig
from pavdm_cli.models.wan.layers import Block, BlockInputs
from pavdm_cli.models.wan.levels import wan_levels
from pavdm_cli.models.wan.loaded import LoadedWan
from pavdm_cli.models.wan.model import MODELS
from pavdm_cli.models.wan.names import original_name, original_vae_names
from pavdm_cli.models.wan.rope import rope_table
from pavdm_cli.models.wan.transformer import WanTransformer
from pavdm_cli.models.wan.vae import WanVAE
from pavdm_cli.models.wan.variants import SMALL
from pavdm_cli.sampling.denoiser import batched_cfg
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.unipc import unipc

CPU = torch.device("cpu")
GRID = (5, 17, 30)  # latents, token rows and columns: 17 frames of 272x480
SPEC = next(iter(MODELS.values())).spec
TINY = WanConfig(dim=40, heads=2, layers=2, ffn_dim=72, text_dim=32, freq_dim=32, fps_embedding=True)
LATENTS, SIDE, STEPS, GUIDANCE, SHIFT = 25, 64, 10, 6.0, 8.0
MATMULS = ("addmm", "aten::mm", "bmm", "_linear_pointwise", "_scaled_dot_product_flash_attention")  # and attention
Call = Callable[[], Tensor]


def main() -> None:
    """Append a row for the block in each precision and one for the tiny model, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("block", "video"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "wan-cpu.jsonl")
    args = parser.parse_args()
    cases = {
        "block": [("block", dtype) for dtype in (torch.float32, torch.bfloat16)],
        "video": [("video", torch.float32)],
    }
    for name, dtype in [case for key, group in cases.items() for case in group if args.only in (None, key)]:
        ours, theirs, config = (block if name == "block" else video)(dtype)
        row = {"schema": "pavdm.wan-cpu/1", "case": name, "dtype": str(dtype).removeprefix("torch."), "config": config}
        row |= {"env": environment(), "ceilings": ceilings(CPU, dtype), **compare(ours, theirs, args.rounds)}
        with args.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name} {row['dtype']}: {row['summary']}")


@torch.no_grad()
def compare(ours: Call, theirs: Call, rounds: int) -> dict[str, Any]:
    """Seconds of both in every round, after one that warms up, and how far their outputs differ."""
    our_output, their_output = ours().float(), theirs().float()
    samples: dict[str, list[float]] = {"pavdm": [], "diffusers": []}
    for _ in range(rounds):
        for name, call in (("pavdm", ours), ("diffusers", theirs)):
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(*samples.values(), strict=True)]
    difference = float((our_output - their_output).pow(2).mean().sqrt() / their_output.pow(2).mean().sqrt())
    medians = {f"{name}_s": median(values) for name, values in samples.items()}
    medians |= {f"{name}_matmul_share": matmul_share(call) for name, call in (("pavdm", ours), ("diffusers", theirs))}
    return {"samples": samples, "summary": {**medians, "ratio": median(ratios), "relative_rms_difference": difference}}


def matmul_share(call: Call) -> float:
    """Share of a call's CPU time in matmuls and attention."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    times = Counter({event.key: event.self_cpu_time_total for event in profiler.key_averages()})
    shared = sum(value for name, value in times.items() if any(part in name for part in MATMULS))
    return round(shared / times.total(), 3)


@torch.no_grad()
def block(dtype: torch.dtype) -> tuple[Call, Call, dict[str, Any]]:
    """One block as in a step: ours uses cached keys and values of the prompt, theirs computes them every time."""
    dim, heads, tokens = SMALL.dim, SMALL.heads, GRID[1] * GRID[2]
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    theirs = SkyReelsV2TransformerBlock(dim, SMALL.ffn_dim, heads, "rms_norm_across_heads", cross_attn_norm=True)
    ours = Block(dim, heads, SMALL.ffn_dim, SMALL.eps)
    ours.load_state_dict({original_name(f".{name}")[1:]: weight for name, weight in theirs.state_dict().items()})
    for network in (ours, theirs):
        network.to(dtype).requires_grad_(False)
        modulation = network.modulation if isinstance(network, Block) else network.scale_shift_table
        modulation.data = modulation.data.float()
    x, text = normal(1, GRID[0] * tokens, dim).to(dtype), normal(1, TEXT_LENGTH, dim).to(dtype)
    levels = normal(GRID[0], 6, dim)
    latents = normal(1, 16, GRID[0], 2 * GRID[1], 2 * GRID[2])
    rotary = SkyReelsV2RotaryPosEmbed(dim // heads, (1, 2, 2), 1024)(latents)
    per_token = levels.repeat_interleave(tokens, dim=0).transpose(0, 1)[None]  # (1, 6, L, D), as their pipeline has it
    frames = BlockInputs(torch.arange(GRID[0], dtype=torch.int32), levels, rope_table(dim // heads, 0, GRID), attend)
    keys_values = ours.cross_attn.project_kv(text)
    tokens_by_frame = x.view(1, GRID[0], tokens, dim)
    config = {"dim": dim, "heads": heads, "ffn_dim": SMALL.ffn_dim, "grid": GRID, "text": TEXT_LENGTH}
    return (
        lambda: ours(tokens_by_frame, frames, keys_values, None)[0].flatten(1, 2),
        lambda: theirs(x, text, per_token, rotary, None),
        config,
    )


def video(dtype: torch.dtype) -> tuple[Call, Call, dict[str, Any]]:
    """A tiny model from noise to frames: one window of every latent, UniPC, guidance, the same number of forwards."""
    transformer, vae, pipeline = tiny_models()
    model, levels = LoadedWan(transformer, vae, Path()), wan_levels(STEPS, SHIFT, 0)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randn(1, TEXT_LENGTH, TINY.text_dim, generator=generator) for _ in range(2)]
    noise = seeded_noise(0, (1, 16, SIDE // 8, SIDE // 8))
    start = torch.stack([noise(index, None) for index in range(LATENTS)], dim=2)

    # Given latents, their pipeline fails on its own return value.
    pipeline.prepare_latents = lambda *_args, **_options: (start.clone(), LATENTS, None, 0)

    def ours() -> Tensor:
        schedule = Schedule(STEPS, STEPS, LATENTS, 0)
        config = DenoiserConfig(0, (SIDE, SIDE), 24, False, False, TORCH)
        texts = [TextEmbedding(prompt[0]) for prompt in prompts]
        denoiser = batched_cfg(model.bind(levels, config)(model.text_kv(texts, config)), GUIDANCE)
        (latents,) = sample(schedule, denoiser, noise, unipc(levels), chunks=1)
        return model.decode_stream(SPEC).push(latents)

    def theirs() -> Tensor:
        out: Tensor = pipeline(
            None, None, SIDE, SIDE, 4 * LATENTS - 3, STEPS, GUIDANCE,
            prompt_embeds=prompts[0], negative_prompt_embeds=prompts[1], output_type="pt",
        ).frames  # fmt: skip
        return out

    config = {"latents": LATENTS, "side": SIDE, "steps": STEPS, "guidance": GUIDANCE, "dim": TINY.dim}
    return ours, theirs, config


def tiny_models() -> tuple[WanTransformer, WanVAE, SkyReelsV2DiffusionForcingPipeline]:
    """The same random weights in both forms."""
    torch.manual_seed(0)
    network = SkyReelsV2Transformer3DModel(
        (1, 2, 2), TINY.heads, TINY.head_dim, 16, 16, TINY.text_dim, TINY.freq_dim, TINY.ffn_dim, TINY.layers,
        inject_sample_info=True,
    )  # fmt: skip
    autoencoder = AutoencoderKLWan(base_dim=4)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
    pipeline = SkyReelsV2DiffusionForcingPipeline(None, None, network, autoencoder, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    transformer, vae = WanTransformer(TINY), WanVAE(VAEConfig(4, 4))
    transformer.load_state_dict({original_name(name): weight for name, weight in network.state_dict().items()})
    vae_weights = autoencoder.state_dict()
    names = original_vae_names(vae_weights)
    vae.load_state_dict({names[name]: weight for name, weight in vae_weights.items()})
    return transformer.eval().requires_grad_(False), vae.eval().requires_grad_(False), pipeline


if __name__ == "__main__":
    main()
