"""The fine-tuning task: its windows, gradient checkpointing, and bit-identical resumption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import OPENSORA
from support.tiny import randomized
from test_train_loop import assert_identical, checkpoint, ignore, stop_after
from test_train_losses import CASES, GOLDEN, SMALL, recorded
from torch import Tensor, nn

from pavdm_cli.errors import UsageError
from pavdm_cli.models.adapter import DenoiserConfig, TextEmbedding
from pavdm_cli.models.distributed import ProcessGroup
from pavdm_cli.models.opensora import export as publish
from pavdm_cli.models.opensora.config import timestep_shift
from pavdm_cli.models.opensora.loaded import LoadedOpenSora
from pavdm_cli.models.registry import get
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.noise import shifted_sigmas
from pavdm_cli.training.batches import BatchConfig
from pavdm_cli.training.finetune.encoding import LatentDataset
from pavdm_cli.training.finetune.task import FinetuneConfig, FinetuneTask, LossModule, enable_gradient_checkpointing
from pavdm_cli.training.levels import Diagonal
from pavdm_cli.training.loop import TrainConfig, init_state, train, train_step
from pavdm_cli.training.losses import Batch
from pavdm_cli.training.optimizer import adamw

TINY = replace(SMALL, hidden=32, heads=2, text_width=8)
SPEC = replace(OPENSORA, size=(16, 32), window=10)
SHIFT = timestep_shift(16, 32, get("opensora-v1.2").layout((16, 32), 24).num_frames(15))
PLAN = TrainConfig(4, lr=0.001, warmup=2, ema_decay=0.99, validate_steps=1, make_optimizers=adamw)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LatentDataset:
    """Three clips of 15 distinct latents, with captions of one to three vectors."""
    folder, clips = tmp_path_factory.mktemp("clips"), []
    for clip in range(3):
        latents = torch.randn(15, 4, 2, 4, generator=torch.Generator().manual_seed(clip)) + 0.1 * torch.arange(15).view(
            -1, 1, 1, 1
        )
        files = folder / f"{clip}.safetensors", folder / f"words-{clip}.safetensors"
        save_file({"value": latents.half()}, files[0])
        save_file({"value": torch.full((clip + 1, 8), float(clip + 1))}, files[1])
        clips.append(files)
    return LatentDataset(tuple(clips), 15)


def model_of(stdit: STDiT) -> LoadedOpenSora:
    return LoadedOpenSora(stdit, nn.Identity(), scales_positions=True, num_null_tokens=300, source=Path("nowhere"))


def make_task(dataset: LatentDataset, method: str = "pa", windows: int = 2, **changed: Any) -> FinetuneTask:
    stdit = randomized(STDiT(TINY))
    stdit.rope.requires_grad_(False)
    config = BatchConfig(
        method, Diagonal(30, 2, 5), windows, noise_augmentation=0.0, timestep_shift=SHIFT, crop_multiple=5, causal=False
    )
    task = FinetuneTask(LossModule(model_of(stdit), SPEC, torch.float32), config, dataset, dataset, {})
    return replace(task, **changed)


class SingleFileTask(FinetuneTask):
    """A task whose weights are exported as one file: it was not loaded from a folder."""

    def export(self, folder: Path) -> Path:
        save_file(self.model.state_dict(), folder / "weights.safetensors")
        return folder / "weights.safetensors"


def record_inputs(task: FinetuneTask, steps: int) -> list[tuple[Batch, list[TextEmbedding], Tensor]]:
    """The inputs of the model in some steps."""
    recorded: list[Any] = []
    task.model.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs))
    for step in range(steps):
        task.loss(step)
    return recorded


def test_the_loss_is_computed_with_the_options_of_the_model(monkeypatch):
    configs: list[DenoiserConfig] = []

    def velocity(noisy: Tensor, timesteps: Tensor, texts: object, config: DenoiserConfig, context: int) -> Tensor:
        configs.append(config)
        return torch.zeros_like(noisy)

    model = model_of(STDiT(SMALL))
    monkeypatch.setattr(type(model), "velocity", lambda self, *inputs: velocity(*inputs))
    loss = LossModule(model, SPEC, torch.float32, {"motion_score": 4.0})
    run = recorded(next(iter(CASES)))
    text = [TextEmbedding(run["y"][0, 0], run["text_mask"][0].bool())]
    loss(CASES[next(iter(CASES))](run).select(slice(0, 1)), text, torch.tensor([False]))
    assert [config.options for config in configs] == [{"motion_score": 4.0}]


@pytest.mark.parametrize("name", CASES)
def test_losses_match_the_recording(name):
    run = recorded(name)
    stdit = STDiT(SMALL)
    stdit.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"))
    size = (int(run["arg.height"][0]), int(run["arg.width"][0]))
    batch = CASES[name](run)
    for row in range(2):  # the recording has two frame rates, a trained model has one
        spec = replace(SPEC, size=size, fps=int(run["arg.fps"][row]))
        sample = slice(row, row + 1)
        text = [TextEmbedding(run["y"][row, 0], run["text_mask"][row].bool())]
        model = model_of(stdit)
        enable_gradient_checkpointing(model)
        loss = LossModule(model, spec, torch.float32)(batch.select(sample), text, torch.tensor([False]))
        torch.testing.assert_close(loss.detach(), run["loss"][sample], rtol=1e-5, atol=0)


def test_training_levels_equal_sampling_levels_up_to_an_offset(dataset):
    sigmas = shifted_sigmas(30, SHIFT)
    for batch, *_ in record_inputs(make_task(dataset), 40):
        clean = int((batch.timesteps == 0).all(0).sum())
        assert clean in (0, 5)
        assert batch.context == 0  # Open-Sora's clean latents see noisy ones
        assert torch.equal(batch.loss_mask, (torch.arange(batch.timesteps.shape[1]) >= clean).float().expand(2, -1))
        chunks = batch.timesteps[:, clean:].unflatten(1, (-1, 5)) / 1000
        assert (chunks - chunks[..., :1]).abs().max() == 0
        even = chunks[..., 0] / (SHIFT - (SHIFT - 1) * chunks[..., 0])  # before the timestep shift
        torch.testing.assert_close(torch.searchsorted(sigmas, chunks[..., 0].contiguous()), (30 * even).ceil().long())
        inside = even[((even > 0) & (even < 0.9989)).all(1)]
        torch.testing.assert_close(30 * inside.diff(dim=1), torch.full_like(inside.diff(dim=1), 15.0))


def test_crops_start_where_the_vae_restarts(dataset):
    starts = set()
    stored = [load_file(latents)["value"].float() for latents, _ in dataset.clips]
    for batch, text, _ in record_inputs(make_task(dataset), 40):
        for row, latents in enumerate(batch.latents):
            clip = int(text[row].embeds[0, 0]) - 1
            assert len(text[row].embeds) == clip + 1
            (start,) = (s for s in range(16 - len(latents)) if torch.equal(stored[clip][s : s + len(latents)], latents))
            starts.add(start)
    assert starts == {0, 5, 10}


def test_dropped_captions_become_the_null_embedding(dataset):
    task = make_task(dataset)
    inputs = record_inputs(task, 1)[0]
    batch, text, _ = inputs
    null = task.model.transformer.y_embedder.y_embedding[: len(text[0].embeds)]
    neither, first = torch.tensor([False, False]), torch.tensor([True, False])
    captioned, uncaptioned = task.model(batch, text, neither), task.model(batch, text, first)
    assert captioned[1] == uncaptioned[1]
    assert captioned[0] != uncaptioned[0]
    assert torch.equal(task.model(batch, [replace(text[0], embeds=null), text[1]], neither), uncaptioned)


def test_one_caption_in_ten_is_dropped(dataset):
    dropped = torch.cat([inputs[2] for inputs in record_inputs(make_task(dataset, windows=8), 60)])
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.04)


def backward(task: FinetuneTask) -> tuple[dict[str, Tensor], int]:
    """The loss and all gradients of a step, and the number of values saved for the backward pass."""
    sizes: list[int] = []

    def count(value: Tensor) -> Tensor:
        sizes.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        loss = task.loss(3)
    loss.backward()
    gradients = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
    return gradients | {"loss": loss.detach()}, sum(sizes)


@pytest.mark.parametrize("timestep_dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_saves_memory_and_changes_nothing(timestep_dtype, dataset):
    once, twice = make_task(dataset), make_task(dataset)
    once.model.dtype = twice.model.dtype = timestep_dtype
    enable_gradient_checkpointing(twice.model.loaded)
    (expected, all_values), (result, few_values) = backward(once), backward(twice)
    assert_identical(result, expected)
    assert len(result) > 80
    assert few_values < 0.5 * all_values


def test_bf16_rounds_timesteps_but_not_the_noise(dataset):
    task = make_task(dataset)
    task.model.dtype = torch.bfloat16
    timesteps: list[Tensor] = []
    task.model.transformer.t_embedder.register_forward_pre_hook(lambda _, inputs: timesteps.append(inputs[0]))
    batch = record_inputs(task, 1)[0][0]
    assert timesteps[0].dtype == torch.bfloat16
    assert torch.equal(timesteps[0], batch.timesteps.flatten().bfloat16())
    assert not torch.equal(batch.timesteps, batch.timesteps.bfloat16().float())


def test_the_mean_loss_over_processes_is_the_batch_loss(dataset):
    single = make_task(dataset, windows=4)
    for step in range(3):
        parts = [make_task(dataset, windows=4, processes=ProcessGroup(rank, 2)).loss(step) for rank in range(2)]
        torch.testing.assert_close(sum(parts) / 2, single.loss(step))
        assert abs(parts[0] - parts[1]) > 1e-3


def test_shards_are_complete_and_balanced():
    for size, count in ((0, 3), (2, 3), (7, 3), (8, 2), (5, 1)):
        parts = [list(ProcessGroup(rank, count).shard(range(size))) for rank in range(count)]
        assert [item for part in parts for item in part] == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_accumulated_batches_are_averaged(dataset, tmp_path):
    single, accumulated = make_task(dataset), make_task(dataset)
    metrics = train_step(
        init_state(accumulated, tmp_path / "none.pt", adamw),
        replace(PLAN, gradient_accumulation=3, max_grad_norm=1e-9, lr=0.0),
    )
    losses = [single.loss(number) for number in range(3)]
    assert metrics["loss"] == pytest.approx(sum(loss.item() for loss in losses) / 3)
    (sum(losses) / 3).backward()
    norm = torch.stack([p.grad.norm() for p in single.model.parameters() if p.grad is not None]).norm()
    assert metrics["gradient"] == pytest.approx(norm.item(), rel=1e-5)


def test_an_interrupted_run_equals_an_uninterrupted_one(dataset, tmp_path):
    def task() -> SingleFileTask:
        published = make_task(dataset)
        return SingleFileTask(published.model, published.batches, dataset, dataset, {})

    for name, stops in (("straight", ()), ("halting", (1, 3))):
        (tmp_path / name).mkdir()
        for last in stops:
            with pytest.raises(KeyboardInterrupt):
                train(task(), PLAN, tmp_path / name, stop_after(last))
        train(task(), PLAN, tmp_path / name, ignore)
    assert_identical(checkpoint(tmp_path / "halting"), checkpoint(tmp_path / "straight"))
    rows = [json.loads(line) for line in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4]
    assert rows[-1]["held_out"] < rows[0]["held_out"]


def test_without_held_out_videos_there_is_no_validation(dataset):
    assert make_task(dataset, held_out=LatentDataset((), 15)).validate() == {}


def test_untrained_parts_are_linked_or_copied(tmp_path, monkeypatch):
    source, weights = tmp_path / "source", {"w": torch.ones(2)}
    for part in ("transformer", "vae", "text_encoder"):
        (source / part).mkdir(parents=True)
        (source / part / "config.json").write_text('{"depth": 2, "torch_dtype": "float32"}')

    def forbidden(*args: object, **options: object) -> None:
        raise OSError("a privilege is not held")

    for name, forbidden_calls in (("linked", []), ("named twice", ["symlink_to"]), ("copied", ["symlink_to", "link"])):
        if "symlink_to" in forbidden_calls:
            monkeypatch.setattr(Path, "symlink_to", forbidden)
        if "link" in forbidden_calls:
            monkeypatch.setattr("pavdm_cli.hub.links.os.link", forbidden)
        for _ in range(2):  # a run publishes many times
            folder = publish.export(weights, source, tmp_path / name, {"steps": 3})
        assert folder.joinpath("vae").is_symlink() == (not forbidden_calls)
        assert (folder / "text_encoder" / "config.json").read_text() == (source / "vae" / "config.json").read_text()
        assert json.loads((folder / "transformer" / "config.json").read_text()) == {
            "depth": 2,
            "torch_dtype": "float32",
        }
        assert torch.equal(load_file(folder / "transformer" / "model.safetensors")["w"], weights["w"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "--precision must be bf16 or fp32, got 'fp8'"),
        ({"window": 12}, "--window must be a multiple of --chunk 5, got 12"),
        ({"size": (100, 60)}, "multiples of 8"),
        ({"fps": 2}, "8 to 60"),
    ],
)
def test_unsupported_sizes_are_rejected(options, message):
    with pytest.raises(UsageError, match=message):
        FinetuneConfig(Path(), **options).spec(OPENSORA)
