"""Fine-tuning as a task: what its windows show, that memory saved costs no digit, and that it goes on bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import randomised
from test_train_loop import assert_identical, checkpoint, ignore, stop_after
from test_train_losses import CASES, GOLDEN, SMALL, recorded
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.opensora import export as publish
from pavdm_cli.models.opensora.config import warp_ratio
from pavdm_cli.models.specs import OPENSORA
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.noise import warped_sigmas
from pavdm_cli.training.batches import Recipe
from pavdm_cli.training.distributed import Processes
from pavdm_cli.training.finetune.encoding import Footage
from pavdm_cli.training.finetune.task import TuneTask, Tuning, Windows, forgetful
from pavdm_cli.training.levels import Diagonal
from pavdm_cli.training.loop import Plan, advance, begin, train
from pavdm_cli.training.losses import Batch
from pavdm_cli.training.optimizer import gentle

TINY = replace(SMALL, hidden=32, heads=2, text_width=8)
SPEC = replace(OPENSORA, size=(16, 32), window=10)
RATIO = warp_ratio(16, 32, SPEC.frames(15))
PLAN = Plan(4, rate=0.001, warmup=2, average=0.99, every=1, build=gentle)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    """Three clips of 15 latents, each latent its own number, beside captions of one to three vectors."""
    folder, clips = tmp_path_factory.mktemp("clips"), []
    for clip in range(3):
        latents = torch.randn(15, 4, 2, 4, generator=torch.Generator().manual_seed(clip)) + 0.1 * torch.arange(15).view(
            -1, 1, 1, 1
        )
        files = folder / f"{clip}.safetensors", folder / f"words-{clip}.safetensors"
        save_file({"value": latents.half()}, files[0])
        save_file({"value": torch.full((clip + 1, 8), float(clip + 1))}, files[1])
        clips.append(files)
    return Footage(tuple(clips), 15)


def make_task(footage: Footage, method: str = "pa", windows: int = 2, **changed: Any) -> TuneTask:
    stdit = randomised(STDiT(TINY))
    stdit.rope.requires_grad_(False)
    recipe = Recipe(method, Diagonal(30, 2, 5), windows, wear=0.0, ratio=RATIO, group=5, causal=False)
    task = TuneTask(Windows(stdit, SPEC, torch.float32), recipe, footage, footage, Path("nowhere"), {})
    return replace(task, **changed)


class Unpublished(TuneTask):
    """Exported as a file, since it was not read from a folder."""

    def export(self, folder: Path) -> Path:
        save_file(self.model.state_dict(), folder / "weights.safetensors")
        return folder / "weights.safetensors"


def seen_by(task: TuneTask, steps: int) -> list[tuple[Batch, Tensor, Tensor, Tensor]]:
    """What the model is given in some steps."""
    seen: list[Any] = []
    task.model.register_forward_pre_hook(lambda _, given: seen.append(given))
    for step in range(steps):
        task.loss(step)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_recorded_ones(name):
    run = recorded(name)
    stdit = STDiT(SMALL)
    stdit.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"))
    size = (int(run["arg.height"][0]), int(run["arg.width"][0]))
    batch = CASES[name](run)
    for row in range(2):  # a model that is trained has one rate, the recording has two
        spec = replace(SPEC, size=size, fps=int(run["arg.fps"][row]))
        which = slice(row, row + 1)
        given = batch.rows(which), run["y"][which, 0], run["text_mask"][which], torch.tensor([False])
        loss = Windows(forgetful(stdit), spec, torch.float32)(*given)
        torch.testing.assert_close(loss.detach(), run["loss"][which], rtol=1e-5, atol=0)


def test_windows_are_shown_at_the_levels_that_sampling_shows_but_for_a_shift(footage):
    sigmas = warped_sigmas(30, RATIO)
    for batch, *_ in seen_by(make_task(footage), 40):
        clean = int((batch.times == 0).all(0).sum())
        assert clean in (0, 5)
        assert batch.clean == 0  # Open-Sora's clean latents see noisy ones
        assert torch.equal(batch.counted, (torch.arange(batch.times.shape[1]) >= clean).float().expand(2, -1))
        chunks = batch.times[:, clean:].unflatten(1, (-1, 5)) / 1000
        assert (chunks - chunks[..., :1]).abs().max() == 0
        even = chunks[..., 0] / (RATIO - (RATIO - 1) * chunks[..., 0])  # as before the warp
        torch.testing.assert_close(torch.searchsorted(sigmas, chunks[..., 0].contiguous()), (30 * even).ceil().long())
        inside = even[((even > 0) & (even < 0.9989)).all(1)]
        torch.testing.assert_close(30 * inside.diff(dim=1), torch.full_like(inside.diff(dim=1), 15.0))


def test_runs_begin_where_the_codec_begins_anew_and_carry_their_own_caption(footage):
    starts = set()
    stored = [load_file(latents)["value"].float() for latents, _ in footage.clips]
    for batch, y, shown, _ in seen_by(make_task(footage), 40):
        for row, latents in enumerate(batch.latents):
            clip = int(y[row, 0, 0]) - 1
            assert shown[row].sum() == clip + 1
            (start,) = (s for s in range(16 - len(latents)) if torch.equal(stored[clip][s : s + len(latents)], latents))
            starts.add(start)
    assert starts == {0, 5, 10}


def test_a_caption_that_is_left_out_is_the_null_embedding_and_nothing_else_changes(footage):
    task = make_task(footage)
    given = seen_by(task, 1)[0]
    batch, y, shown, _ = given
    null = task.model.stdit.y_embedder.y_embedding[: y.shape[1]].expand_as(y)
    neither, first = torch.tensor([False, False]), torch.tensor([True, False])
    said, unsaid = task.model(batch, y, shown, neither), task.model(batch, y, shown, first)
    assert said[1] == unsaid[1]
    assert said[0] != unsaid[0]
    assert torch.equal(task.model(batch, torch.where(first[:, None, None], null, y), shown, neither), unsaid)


def test_captions_are_left_out_one_time_in_ten(footage):
    without = torch.cat([given[3] for given in seen_by(make_task(footage, windows=8), 60)])
    assert without.float().mean().item() == pytest.approx(0.1, abs=0.04)


def differentiated(task: TuneTask) -> tuple[dict[str, Tensor], int]:
    """The loss and all gradients of a step, and how many numbers were kept for the backward pass."""
    sizes: list[int] = []

    def keep(value: Tensor) -> Tensor:
        sizes.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = task.loss(3)
    loss.backward()
    gradients = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
    return gradients | {"loss": loss.detach()}, sum(sizes)


@pytest.mark.parametrize("rounded", [torch.float32, torch.bfloat16])
def test_blocks_computed_twice_give_the_same_losses_and_gradients_and_keep_less(rounded, footage):
    once, twice = make_task(footage), make_task(footage)
    once.model.rounded = twice.model.rounded = rounded
    forgetful(twice.model.stdit)
    (wanted, all_kept), (found, few_kept) = differentiated(once), differentiated(twice)
    assert_identical(found, wanted)
    assert len(found) > 80
    assert few_kept < 0.5 * all_kept


def test_in_bfloat16_timesteps_are_read_rounded_as_sampling_does_and_noise_is_not(footage):
    task = make_task(footage)
    task.model.rounded = torch.bfloat16
    read: list[Tensor] = []
    task.model.stdit.t_embedder.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    batch = seen_by(task, 1)[0][0]
    assert read[0].dtype == torch.bfloat16
    assert torch.equal(read[0], batch.times.flatten().bfloat16())
    assert not torch.equal(batch.times, batch.times.bfloat16().float())


def test_processes_share_a_batch_so_that_the_mean_of_their_losses_is_its_loss(footage):
    alone = make_task(footage, windows=4)
    for step in range(3):
        parts = [make_task(footage, windows=4, among=Processes(rank, 2)).loss(step) for rank in range(2)]
        torch.testing.assert_close(sum(parts) / 2, alone.loss(step))
        assert abs(parts[0] - parts[1]) > 1e-3


def test_what_processes_share_is_shared_whole_and_alike():
    for many, count in ((0, 3), (2, 3), (7, 3), (8, 2), (5, 1)):
        parts = [list(Processes(rank, count).share(range(many))) for rank in range(count)]
        assert [thing for part in parts for thing in part] == list(range(many))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_that_are_accumulated_are_one_step_of_their_mean(footage, tmp_path):
    one, many = make_task(footage), make_task(footage)
    figures = advance(begin(many, tmp_path / "none.pt", gentle), replace(PLAN, accumulate=3, clip=1e-9, rate=0.0))
    losses = [one.loss(number) for number in range(3)]
    assert figures["loss"] == pytest.approx(sum(loss.item() for loss in losses) / 3)
    (sum(losses) / 3).backward()
    norm = torch.stack([p.grad.norm() for p in one.model.parameters() if p.grad is not None]).norm()
    assert figures["gradient"] == pytest.approx(norm.item(), rel=1e-5)


def test_an_interrupted_run_ends_as_one_that_was_not(footage, tmp_path):
    def task() -> Unpublished:
        made = make_task(footage)
        return Unpublished(made.model, made.recipe, footage, footage, Path(), {})

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


def test_with_nothing_held_out_nothing_is_judged(footage):
    assert make_task(footage, held_out=Footage((), 15)).judge() == {}


def test_what_is_not_trained_is_linked_or_where_links_are_forbidden_given_a_second_name(tmp_path, monkeypatch):
    source, weights = tmp_path / "source", {"w": torch.ones(2)}
    for part in ("transformer", "vae", "text_encoder"):
        (source / part).mkdir(parents=True)
        (source / part / "config.json").write_text('{"depth": 2, "torch_dtype": "float32"}')

    def forbidden(*given: object, **options: object) -> None:
        raise OSError("a privilege is not held")

    for name, refused in (("linked", []), ("named twice", ["symlink_to"]), ("copied", ["symlink_to", "link"])):
        if "symlink_to" in refused:
            monkeypatch.setattr(Path, "symlink_to", forbidden)
        if "link" in refused:
            monkeypatch.setattr(publish.os, "link", forbidden)
        for _ in range(2):  # a run publishes many times
            folder = publish.publish(weights, source, tmp_path / name, {"steps": 3})
        assert folder.joinpath("vae").is_symlink() == (not refused)
        assert (folder / "text_encoder" / "config.json").read_text() == (source / "vae" / "config.json").read_text()
        assert json.loads((folder / "transformer" / "config.json").read_text()) == {
            "depth": 2,
            "torch_dtype": "float32",
        }
        assert torch.equal(load_file(folder / "transformer" / "model.safetensors")["w"], weights["w"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"precision": "fp8"}, "--precision must be bf16 or fp32, got 'fp8'"),
        ({"window": 12}, "--window must be a multiple of --chunk 5, got 12"),
        ({"size": (100, 60)}, "multiples of 8"),
        ({"fps": 2}, "8 to 60"),
    ],
)
def test_sizes_that_do_not_fit_are_one_clear_error(asked, message):
    with pytest.raises(UsageError, match=message):
        Tuning(Path(), **asked).spec(OPENSORA)
