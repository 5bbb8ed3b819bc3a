"""The released code's sequence of operations, on our weights: the baseline that a speed-up is measured against.

Rebuilt from a description of what that code does at every step: timesteps embedded frame by frame, keys and values of
the text projected in every block, the context recomputed, normalization, modulation, gates and rotary embedding as
separate operations, frames and tokens transposed by copies. Takes the weights of an `STDiT`, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.stdit.denoiser import Size
from pavdm_cli.models.stdit.layers import Block, CrossAttention, Mlp, RMSNormWeight, SelfAttention, position_embedding
from pavdm_cli.models.stdit.loaded import STDiTModel
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_cli.sampling.noise import NoiseLevels


class Prompt(NamedTuple):
    """Token vectors without padding, and the frame rate."""

    y: Tensor  # (B, L, text width)
    fps: float


def build_released_denoiser(model: ModelRunner, text: Sequence[TextEmbedding], levels: NoiseLevels) -> Denoiser | None:
    """A denoiser with the operations of the released code; None if the transformer is not an STDiT."""
    if not isinstance(model.model, STDiTModel):
        return None
    prompt = Prompt(model.model.pad_batch(text)[0], model.model.model_fps(model.spec.fps))
    return released_stdit(
        model.model.transformer, prompt, levels.sigmas, model.spec.size if model.model.scales_positions else None
    )


def released_stdit(network: STDiT, prompt: Prompt, sigmas: Tensor, size: Size = None) -> Denoiser:
    """A denoiser with the operations of the released code, with bidirectional attention."""

    def prefill(frames: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return frames, sigmas.new_full(frames.shape[1:2], float(sigmas[level]))

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: tuple[Tensor, Tensor] | None) -> Tensor:
        t = sigmas[levels.long()]
        before = window[:, :0] if cache is None else cache[0]
        z = torch.cat([before, window], dim=1)
        t = t if cache is None else torch.cat([cache[1], t])
        out = step(network, z, 1000 * t.expand(len(z), -1), prompt, size)
        return out[:, before.shape[1] :].to(window)

    return FunctionDenoiser(prefill, velocity)


def step(network: STDiT, z: Tensor, t: Tensor, prompt: Prompt, size: Size) -> Tensor:
    """One call of the network: z (B, T, C, H, W), t (B, T) in [0, 1000]."""
    weight = network.x_embedder.proj.weight
    _, height, width = network.config.patch
    size_in = z.shape[-2:]
    rows, columns = -(-size_in[0] // height), -(-size_in[1] // width)
    z = F.pad(z.to(weight), (0, columns * width - size_in[1], 0, rows * height - size_in[0]))
    final, block = timesteps(network, t.to(weight), prompt.fps)
    y = mlp(network.y_embedder.y_proj, prompt.y.to(weight))
    x = F.conv3d(z.transpose(1, 2), weight, network.x_embedder.proj.bias, stride=network.config.patch)
    x = rearrange(x, "b d t h w -> b t (h w) d")
    scale = 1.0 if size is None else (size[0] * size[1]) ** 0.5 / network.config.input_sq_size
    x = rearrange(x + position_embedding((rows, columns), scale, x), "b t s d -> b (t s) d")
    angles = rope_angles(network, t.shape[1])
    for spatial, temporal in zip(network.spatial_blocks, network.temporal_blocks, strict=True):
        x = run(spatial, x, y, block, None)
        x = run(temporal, x, y, block, angles)
    return final_layer(network, x, final, (rows, columns))[..., : size_in[0], : size_in[1]]


def timesteps(network: STDiT, t: Tensor, fps: float) -> tuple[Tensor, Tensor]:
    """Every frame of every sample embedded and projected: (B, T, D) and (B, T, 6 D)."""
    each = network.t_embedder(t.flatten()).unflatten(0, t.shape)
    final = each + network.fps_embedder(t.new_full((len(t),), fps))[:, None]
    return final, network.t_block(final)


def run(block: nn.Module, x: Tensor, y: Tensor, modulation: Tensor, angles: Tensor | None) -> Tensor:  # x (B, T S, D)
    """One block, over space, or with `angles` over time."""
    assert isinstance(block, Block)
    frames = modulation.shape[1]
    each = block.scale_shift_table + rearrange(modulation, "b t (c d) -> b t c d", c=6)  # (B, T, 6, D)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = each.chunk(6, dim=2)  # (B, T, 1, D)
    h = modulate(x, shift, scale)
    if angles is None:
        h = self_attention(block.attn, fold(h, frames, "(b t) s d"), None)
        h = rearrange(h, "(b t) s d -> b (t s) d", t=frames)
    else:
        h = self_attention(block.attn, fold(h, frames, "(b s) t d"), angles)
        h = rearrange(h, "(b s) t d -> b (t s) d", b=len(x))
    x = x + apply_gate(h, gate)
    x = x + cross_attention(block.cross_attn, x, y)
    return x + apply_gate(mlp(block.mlp, modulate(x, shift_mlp, scale_mlp)), gate_mlp)


def fold(x: Tensor, frames: int, to: str) -> Tensor:
    """Tokens of a frame, or frames of a pixel, as sequences of their own."""
    return rearrange(x, f"b (t s) d -> {to}", t=frames).contiguous()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalized, then scaled, then shifted, frame by frame."""
    y = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    y = rearrange(y, "b (t s) d -> b t s d", t=shift.shape[1])
    return rearrange(y * (1 + scale) + shift, "b t s d -> b (t s) d")


def apply_gate(h: Tensor, gate: Tensor) -> Tensor:
    """A branch times its gate, frame by frame."""
    return rearrange(gate * rearrange(h, "b (t s) d -> b t s d", t=gate.shape[1]), "b t s d -> b (t s) d")


def self_attention(layer: SelfAttention, x: Tensor, angles: Tensor | None) -> Tensor:  # (B', S', D)
    """Fused attention for sequences longer than their number, else scores in memory and a softmax in float32."""
    qkv = F.linear(x, layer.qkv.weight, layer.qkv.bias)
    q, k, v = rearrange(qkv, "b s (c n k) -> c b n s k", c=3, n=layer.heads)
    q, k = rms_norm(q, layer.q_norm), rms_norm(k, layer.k_norm)
    if angles is not None:
        q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
    use_sdpa = x.shape[1] > x.shape[0]
    out = F.scaled_dot_product_attention(q, k, v) if use_sdpa else eager(q, k, v)
    return F.linear(rearrange(out, "b n s k -> b s (n k)"), layer.proj.weight, layer.proj.bias)


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as four operations."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights: Tensor = scores.float().softmax(dim=-1)
    return weights.to(v.dtype) @ v


def rms_norm(x: Tensor, norm: RMSNormWeight) -> Tensor:
    """Normalized in float32; the weight is applied in the original precision."""
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    out: Tensor = norm.weight * wide.to(x.dtype)
    return out


def rope_angles(network: STDiT, frames: int) -> Tensor:
    """Angles of every frame, each twice for its pair of values: (T, K)."""
    freqs = network.rope.freqs
    positions = torch.arange(frames, device=freqs.device, dtype=freqs.dtype)
    return (positions[:, None] * freqs).repeat_interleave(2, dim=-1)


def rotate_pairs(x: Tensor, angles: Tensor) -> Tensor:  # (B', N, T, K)
    """Rotary embedding: cosines times the values, plus sines times the values swapped, one negated."""
    even, odd = rearrange(x, "b n t (k two) -> two b n t k", two=2)
    rotated_pairs = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x * angles.cos() + rotated_pairs * angles.sin()).to(x.dtype)


def cross_attention(layer: CrossAttention, x: Tensor, y: Tensor) -> Tensor:  # (B, T S, D), (B, L, D)
    """The text's keys and values are projected here, again at every step."""
    q = F.linear(x, layer.q_linear.weight, layer.q_linear.bias)
    q = rearrange(q, "b s (n k) -> b n s k", n=layer.heads)
    kv = F.linear(y, layer.kv_linear.weight, layer.kv_linear.bias)
    k, v = rearrange(kv, "b s (c n k) -> c b n s k", c=2, n=layer.heads)
    out = F.scaled_dot_product_attention(q, k, v)
    return F.linear(out.transpose(1, 2).flatten(2), layer.proj.weight, layer.proj.bias)


def mlp(layer: Mlp, x: Tensor) -> Tensor:
    """Two linear layers with a GELU pass between them."""
    inner = F.gelu(F.linear(x, layer.fc1.weight, layer.fc1.bias), approximate="tanh")
    return F.linear(inner, layer.fc2.weight, layer.fc2.bias)


def final_layer(network: STDiT, x: Tensor, final: Tensor, grid: tuple[int, int]) -> Tensor:
    """Final modulation and projection, unpatchified, without the half that is not velocity."""
    layer, (rows, columns) = network.final_layer, grid
    shift, scale = (layer.scale_shift_table + final[:, :, None]).chunk(2, dim=2)
    out = F.linear(modulate(x, shift, scale), layer.linear.weight, layer.linear.bias)
    _, height, width = network.config.patch
    sizes = {"t": final.shape[1], "h": rows, "w": columns, "p": height, "q": width}
    out = rearrange(out, "b (t h w) (p q c) -> b t c (h p) (w q)", **sizes)
    return out[:, :, : network.config.in_channels].float()
