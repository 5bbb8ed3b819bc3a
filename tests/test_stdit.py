"""Properties of the transformer: exact reuse of clean frames, masked padding, neutral initialization."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pavdm_cli.models.stdit.transformer import Conditioning, ContextKV, Modulation, STDiT, STDiTConfig
from pavdm_kernels import euler_step, temporal_attention

TINY = STDiTConfig(hidden=32, depth=2, heads=2, in_channels=3, out_channels=6, text_width=5, text_length=7)
XL2 = STDiTConfig(hidden=1152, depth=28, heads=16, in_channels=4, out_channels=8, text_width=4096, text_length=300)
CLEAN, NOISY, BATCH = 2, 3, 2


def randomized(model: STDiT) -> STDiT:
    """Every parameter and buffer random: nothing starts at zero and hides a mistake."""
    generator = torch.Generator().manual_seed(3)
    for weight in model.state_dict().values():
        weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
    return model


@pytest.fixture(scope="module")
def model() -> STDiT:
    return randomized(STDiT(TINY).double())


@pytest.fixture(scope="module")
def video() -> Tensor:
    """Clean frames, then noisy ones, with an odd height: (B, C + F, channels, H, W)."""
    return torch.randn(BATCH, CLEAN + NOISY, 3, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


LEVELS = torch.tensor([0, 0, 1, 2, 3], dtype=torch.int32)


def table(model: STDiT) -> Modulation:
    return model.embed_timesteps(torch.tensor([0.0, 250.0, 600.0, 1000.0]).double(), torch.tensor(8.0).double())


def words(model: STDiT) -> Conditioning:
    y = torch.randn(BATCH, 7, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return model.encode_text(y.to(model.y_embedder.y_embedding), torch.arange(7) < torch.tensor([[4], [6]]))


def prefill(model: STDiT, overlap: Tensor) -> ContextKV:
    return model.prefill(overlap, LEVELS[:CLEAN], table(model), words(model))


def test_reuse_equals_the_full_pass(model: STDiT, video: Tensor) -> None:
    full = model(video, LEVELS, table(model), words(model), num_context_latents=CLEAN)[:, CLEAN:]
    memory = prefill(model, video[:, :CLEAN])
    reused = model(video[:, CLEAN:], LEVELS[CLEAN:], table(model), words(model), context_kv=memory)
    torch.testing.assert_close(reused, full, rtol=0, atol=1e-10)


@pytest.mark.parametrize("levels", [LEVELS, torch.stack([LEVELS, LEVELS.flip(0)])], ids=["a window", "a batch"])
def test_looking_all_vectors_up_at_once_changes_no_bit(model: STDiT, video: Tensor, levels: Tensor) -> None:
    added = model.precompute_vectors(table(model))
    assert added.vectors is not None
    assert added.vectors.shape == (4, 6 * 2 * TINY.depth + 2, TINY.hidden)
    assert torch.equal(model(video, levels, added, words(model)), model(video, levels, table(model), words(model)))


def test_every_vector_looked_up_at_once_is_read(model: STDiT, video: Tensor) -> None:
    added = model.precompute_vectors(table(model))
    assert added.vectors is not None
    expected = model(video, LEVELS, added, words(model))
    for index in range(added.vectors.shape[1]):
        changed = added.vectors.clone()
        changed[:, index] += 1
        out = model(video, LEVELS, added._replace(vectors=changed), words(model))
        assert (out - expected).abs().max() > 1e-4, index


def test_a_memory_one_shift_old_is_seen(model: STDiT, video: Tensor) -> None:
    fresh, stale = prefill(model, video[:, CLEAN : 2 * CLEAN]), prefill(model, video[:, :CLEAN])
    inputs = (video[:, CLEAN:], LEVELS[CLEAN:], table(model), words(model))
    assert (model(*inputs, context_kv=fresh) - model(*inputs, context_kv=stale)).abs().max() > 1e-2


@pytest.mark.parametrize("block", range(TINY.depth))
def test_every_block_reads_its_own_memory(model: STDiT, video: Tensor, block: int) -> None:
    memory = prefill(model, video[:, :CLEAN])
    assert memory.kv is not None
    spoiled = memory.kv.clone()
    spoiled[block] += 1
    inputs = (video[:, CLEAN:], LEVELS[CLEAN:], table(model), words(model))
    change = model(*inputs, context_kv=memory) - model(*inputs, context_kv=memory._replace(kv=spoiled))
    assert change.abs().max() > 1e-3


def test_training_through_reuse_gives_the_gradients_of_the_full_pass(model: STDiT, video: Tensor) -> None:
    weights = [p for p in model.parameters() if p.requires_grad]
    full = model(video, LEVELS, table(model), words(model), num_context_latents=CLEAN)[:, CLEAN:]
    memory = prefill(model, video[:, :CLEAN])
    reused = model(video[:, CLEAN:], LEVELS[CLEAN:], table(model), words(model), context_kv=memory)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), weights) for out in (full, reused)), strict=True)
    for left, right in pairs:
        assert left.abs().max() > 0
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_clean_frames_never_see_noisy_ones(model: STDiT, video: Tensor) -> None:
    other = torch.cat([video[:, :CLEAN], video[:, CLEAN:].flip(1)], dim=1)
    first, second = (model(z, LEVELS, table(model), words(model), num_context_latents=CLEAN) for z in (video, other))
    torch.testing.assert_close(first[:, :CLEAN], second[:, :CLEAN], rtol=0, atol=1e-12)
    both = (model(z, LEVELS, table(model), words(model)) for z in (video, other))
    assert torch.sub(*both)[:, :CLEAN].abs().max() > 1e-3


def test_two_calls_are_the_masked_attention() -> None:
    q, k, v = torch.randn(3, BATCH, CLEAN + NOISY, 4, 2, 8, dtype=torch.float64)
    masked = torch.ones(CLEAN + NOISY, CLEAN + NOISY, dtype=torch.bool)
    masked[:CLEAN, CLEAN:] = False
    heads = (x.permute(0, 2, 3, 1, 4) for x in (q, k, v))  # (B, S, N, T, K)
    expected = (
        torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=masked).permute(0, 3, 1, 2, 4).flatten(3)
    )
    parts = [temporal_attention(q[:, :CLEAN], k[:, :CLEAN], v[:, :CLEAN])]
    memory = torch.stack([k[:, :CLEAN], v[:, :CLEAN]])
    parts.append(temporal_attention(q[:, CLEAN:], k[:, CLEAN:], v[:, CLEAN:], memory))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-12)


def test_rotary_attention_sees_only_differences_of_position(model: STDiT, video: Tensor) -> None:
    inputs = (video[:, CLEAN:], LEVELS[CLEAN:], table(model), words(model))
    torch.testing.assert_close(model(*inputs), model(*inputs, context_kv=ContextKV(None, CLEAN)), rtol=0, atol=1e-12)


def test_one_row_a_level_equals_one_row_a_frame(model: STDiT, video: Tensor) -> None:
    t = torch.tensor([0.0, 250.0, 600.0, 1000.0]).double()[LEVELS].repeat(BATCH)
    frames = torch.arange(len(t), dtype=torch.int32).view(BATCH, -1)
    each = model(video, frames, model.embed_timesteps(t, torch.tensor(8.0).double()), words(model))
    torch.testing.assert_close(each, model(video, LEVELS, table(model), words(model)), rtol=0, atol=1e-12)
    late = model(video, LEVELS + (LEVELS == 1), table(model), words(model))
    assert (late - each).abs().max() > 1e-3


def test_padding_words_change_nothing(model: STDiT, video: Tensor) -> None:
    y = torch.randn(BATCH, 4, 5, dtype=torch.float64)
    padded = torch.cat([y, torch.full((BATCH, 3, 5), 9.0).double()], dim=1)
    short, long = model.encode_text(y), model.encode_text(padded, torch.arange(7).expand(BATCH, 7) < 4)
    assert long.mask is None
    first, second = (model(video, LEVELS, table(model), text) for text in (short, long))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_prompts_of_different_length_share_a_batch(model: STDiT, video: Tensor) -> None:
    y, lengths = torch.randn(BATCH, 7, 5, dtype=torch.float64), (4, 6)
    together = model.encode_text(y, torch.arange(7) < torch.tensor(lengths)[:, None])
    assert together.text_kv[0].shape[1] == max(lengths)
    alone = [
        model(video[i : i + 1], LEVELS, table(model), model.encode_text(y[i : i + 1, :length]))
        for i, length in enumerate(lengths)
    ]
    both = model(video, LEVELS, table(model), together)
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-12)


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    listed = (Path(__file__).parent / "golden" / "stdit3_xl2_params.txt").read_text().splitlines()[1:]
    with torch.device("meta"):
        big = STDiT(XL2)
    kinds = {
        **dict.fromkeys(dict(big.named_parameters()), "param"),
        **dict.fromkeys(dict(big.named_buffers()), "buffer"),
    }
    ours = {f"{name} {list(weight.shape)} {kinds[name]}" for name, weight in big.state_dict().items()}
    assert {line.replace(", ", ",") for line in listed} == {line.replace(", ", ",") for line in ours}
    assert sum(p.numel() for p in big.parameters()) == 1_207_643_972


def test_fresh_weights_come_from_the_generator_and_predict_zero(video: Tensor) -> None:
    fresh = [STDiT(TINY) for _ in range(2)]
    for model in fresh:
        model.initialize_weights(torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in fresh), strict=True))
    model = fresh[0].double()
    out = model(video, LEVELS, table(model), words(model))
    assert out.abs().max() == 0


def test_every_weight_learns_within_three_steps(video: Tensor) -> None:
    model = STDiT(TINY).double()
    model.initialize_weights(torch.Generator().manual_seed(1))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model(video, LEVELS, table(model), words(model), num_context_latents=CLEAN) - video).square().mean().backward()
        optimizer.step()
    assert [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.abs().max() > 0] == []


def test_bfloat16_autocast_stays_close(video: Tensor) -> None:
    model = randomized(STDiT(TINY))
    case = (video.float(), LEVELS, table(model), words(model))
    exact = model(*case, num_context_latents=CLEAN)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(*case, num_context_latents=CLEAN)
    rounded.float().square().sum().backward()
    assert (rounded - exact).square().mean() < 0.03**2 * exact.square().mean()


def test_a_euler_step_takes_each_frame_its_own_way(video: Tensor) -> None:
    sigma = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    steps = sigma.diff(prepend=sigma[:1])
    noise = torch.randn_like(video)
    now, after = (s[:, None, None, None] for s in (sigma[LEVELS], (sigma - steps)[LEVELS]))
    z = video + now * (noise - video)
    result = euler_step(z, video - noise, LEVELS, steps)
    torch.testing.assert_close(result, video + after * (noise - video), rtol=0, atol=1e-12)
