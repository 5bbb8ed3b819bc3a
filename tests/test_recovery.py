"""Invalid values are detected in their chunk, recomputed once, or else end the run with all valid frames saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command import pavdm
from support.models import POCKET
from support.requests import make_request
from support.tape import Tape
from support.tiers import integration
from torch import Tensor, nn

from pavdm_cli.errors import InvalidOutputError, ModelError
from pavdm_cli.generation import pipeline, recovery
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.recovery import Recovery, describe_fault
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.pixels import to_unit
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE
from pavdm_cli.models.runner import ModelRunner, precision_of, with_offload
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.video import open_video

NAN, HUGE = float("nan"), 1e6
ALWAYS = range(10_000)


def job_of(
    method: str = "pa", precision: str = "auto", edit: float = 0.0, warmup: int = 0, **engine: object
) -> GenerationConfig:
    """Four chunks of two frames each; under `pa` one is finished after step 6, and one after every later step."""
    sampling = {
        "seed": 1,
        "steps": 6,
        "threads": 1,
        "method": method,
        "precision": precision,
        "edit_ratio": edit,
        "warmup": warmup,
    }
    sizes = {"chunk": 1, "window": 6 if method == "pa" else 1}
    return resolve(make_request("a red ball", frames=8, **sampling, **sizes, **engine))


@pytest.fixture(scope="module")
def right() -> np.ndarray:
    """The frames of a run without faults."""
    job = job_of()
    return np.concatenate(list(pipeline.generate_frames(job, pipeline.open_model(job))))


@contextmanager
def planted(module: nn.Module, at: range, value: float = NAN) -> Iterator[None]:
    """Calls of a module, counted from 0, in which one value of the result is another."""
    calls = count()

    def spoil(module: nn.Module, inputs: object, out: Tensor) -> Tensor:
        if next(calls) not in at:
            return out
        out = out.clone(memory_format=torch.contiguous_format)
        out.view(-1)[7] = value
        return out

    handle = module.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


def run(
    job: GenerationConfig, model: ModelRunner, recovery: Recovery, graph_capturer: GraphCapturer | None = None
) -> list[np.ndarray]:
    """Frames by chunk; those before a fault are what is given where one ends the run."""
    chunks: list[np.ndarray] = []
    try:
        chunks.extend(pipeline.generate_frames(job, model, graph_capturer=graph_capturer, recovery=recovery))
    except InvalidOutputError as error:
        recovery.notes.append(error.message)
    return chunks


@pytest.mark.parametrize("value", [NAN, -HUGE, *integration(float("inf"))])
@pytest.mark.parametrize("overlap_decode", ["off", "on"])
def test_a_fault_of_the_transformer_that_passes_changes_no_frame(value: float, overlap_decode: str, right) -> None:
    job = job_of(overlap_decode=overlap_decode)
    model = pipeline.open_model(job)
    watch = Recovery(model)
    with planted(model.transformer, range(6, 7), value):
        chunks = run(job, model, watch)
    assert np.array_equal(np.concatenate(chunks), right)
    assert watch.notes[0].startswith("the transformer produced ")
    assert watch.notes[0].endswith(" in chunk 2; recomputed in float32")
    assert len(watch.notes) == 1


@pytest.mark.parametrize("overlap_decode", ["off", "on"])
def test_a_fault_of_the_transformer_that_stays_ends_at_its_chunk(overlap_decode: str, right) -> None:
    job = job_of(overlap_decode=overlap_decode)
    model = pipeline.open_model(job)
    watch = Recovery(model)
    with planted(model.transformer, range(7, 10_000)):
        chunks = run(job, model, watch)
    assert np.array_equal(np.concatenate(chunks), right[:4])
    assert watch.notes == ["the transformer produced NaN values in chunk 3, twice in float32"]


@pytest.mark.parametrize(("first", "place"), [(0, "warm-up chunk 1"), (6, "warm-up chunk 2"), (7, "chunk 1")])
def test_chunks_of_a_fault_are_counted_after_the_warmup(first: int, place: str) -> None:
    job = job_of(warmup=2)
    model = pipeline.open_model(job)
    watch = Recovery(model)
    with planted(model.transformer, range(first, 10_000)):
        run(job, model, watch)
    assert watch.notes == [f"the transformer produced NaN values in {place}, twice in float32"]


@pytest.mark.integration
def test_steps_that_are_recorded_are_watched_too(right) -> None:
    job, tape = job_of(), Tape()
    model = pipeline.open_model(job)
    with planted(model.transformer, ALWAYS):
        watch = Recovery(model)
        chunks = run(job, model, watch, GraphCapturer(tape))
    assert chunks == []
    assert watch.notes == ["the transformer produced NaN values in chunk 1, twice in float32"]
    watch = Recovery(model)
    assert np.array_equal(np.concatenate(run(job, model, watch, GraphCapturer(Tape()))), right)
    assert watch.notes == []


def test_bfloat16_is_computed_again_in_float32(right) -> None:
    job = job_of(precision="bf16")
    model = pipeline.open_model(job)
    watch = Recovery(model)
    with planted(model.transformer, range(7, 10_000)):
        frames = np.concatenate(run(job, model, watch))
    assert [note.rpartition(" in ")[0].partition(" in ")[2] for note in watch.notes] == [
        f"chunk {n}; recomputed" for n in (3, 4)
    ]
    assert frames.shape == right.shape
    assert np.abs(frames.astype(int) - right).mean() < 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fault_of_the_decoder_is_told_from_one_of_the_transformer(precision: str) -> None:
    job = job_of(precision=precision)
    model = pipeline.open_model(job)
    sound = run(job, model, Recovery(model))
    watch = Recovery(model)
    with planted(model.vae.decoder, range(1, 2)):  # one call a latent
        chunks = run(job, model, watch)
    assert len(chunks) == 4
    assert watch.notes == ["the decoder produced NaN values in chunk 2; recomputed in float32"]
    assert np.abs(np.concatenate(chunks).astype(int) - np.concatenate(sound)).max() <= 3
    watch = Recovery(model)
    with planted(model.vae.decoder[-2], range(2, 10_000), 1e12):
        chunks = run(job, model, watch)
    assert len(chunks) == 2
    assert watch.notes[-1].startswith("the decoder produced NaN values in chunk 3, ")


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.integration
def test_a_float32_copy_of_offloaded_weights_gives_the_same(offload: str) -> None:
    job = job_of(precision="bf16")
    plain = pipeline.open_model(job)
    away = with_offload(pipeline.open_model(job_of(precision="bf16")), offload)
    levels = pipeline.make_levels(job)
    results = []
    for model in (plain, away):
        assert precision_of(model.transformer) == "bfloat16"
        copy = model.upcast("transformer")
        assert precision_of(copy.transformer) == "float32"
        denoiser = copy.denoiser(job.formatted_prompt.text, job.schedule, levels, job.guidance_scale, job.execution)
        window = torch.ones(1, 6, 24, 8, 12)
        decoded = model.upcast("vae").decode(window[:, :1])
        results.append((denoiser(window, torch.arange(1, 7, dtype=torch.int32), None), decoded))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("edit", [0.3, *integration(0.0)])
@pytest.mark.integration
def test_clip_after_clip_is_watched_too(edit: float) -> None:
    job = job_of("rn", edit=edit)
    model = pipeline.open_model(job)
    sound = np.concatenate(run(job, model, Recovery(model)))
    watch = Recovery(model)
    with planted(model.transformer, range(8, 9)):
        assert np.array_equal(np.concatenate(run(job, model, watch)), sound)
    assert " in chunk 2; recomputed" in watch.notes[0]
    watch = Recovery(model)
    with planted(model.transformer, range(8, 10_000)):
        assert len(run(job, model, watch)) == 1
    assert " in chunk 2, twice in float32" in watch.notes[0]


def test_the_device_is_waited_for_once_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counted(values: Tensor, limit: float) -> str:
        looked.append(values.numel())
        return describe_fault(values, limit)

    monkeypatch.setattr(recovery, "describe_fault", counted)
    job = job_of()
    list(pipeline.sample_latents(job, pipeline.open_model(job)))
    assert len(looked) == job.chunks


@pytest.mark.parametrize(
    ("values", "words"),
    [([0.0, 99.0], ""), ([0, NAN], "NaN"), ([0, float("-inf")], "inf"), ([0, -101.0], "up to 101"), ([], "")],
)
def test_faulty_values_are_named(values: list[float], words: str) -> None:
    fault = describe_fault(torch.tensor(values), 100.0)
    assert words in fault
    assert bool(fault) == bool(words)


def test_clamping_hides_nothing_that_is_no_picture() -> None:
    assert to_unit(torch.tensor([-0.5, 0.25, 3.0])).tolist() == [0, 0.25, 1]
    for value in (float("inf"), -1e12, NAN):
        assert to_unit(torch.tensor([0.25, value])).isnan().all()


def test_a_run_that_ends_names_its_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = pipeline.open_model

    def spoiled(job: GenerationConfig) -> ModelRunner:
        model = opened(job)
        plant.enter_context(planted(model.transformer, range(7, 10_000)))
        return model

    monkeypatch.setattr(pipeline, "open_model", spoiled)
    words = ("--seed", "1", "--steps", "6", "--window", "6", "--chunk", "1", "--frames", "8", "--warmup", "0")
    with ExitStack() as plant:
        result = pavdm("generate", "a red ball", *words, "-o", "v.mp4")
    assert (result.code, result.out) == (1, "")
    assert "NaN values in chunk 3, twice in float32: kept v.partial.mp4, 4 frames" in result.err
    assert "hint: the weights may be damaged" in result.err
    assert open_video(Path("v.partial.mp4")).frames == 4


def spoil_file(source: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    from safetensors import safe_open

    with safe_open(source, "pt") as file:
        header = file.metadata()
    weights = load_file(source)
    change(weights)
    save_file(weights, target, header)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_weights_that_are_not_finite_are_rejected_by_name(value: float, tmp_path: Path) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights["stdit.final_layer.linear.weight"][3, 5] = value

    spoil_file(POCKET.folder / DENOISER_FILE, tmp_path / "denoiser.safetensors", change)
    with pytest.raises(ModelError, match=r"stdit\.final_layer\.linear\.weight in .*denoiser\.safetensors") as excinfo:
        checkpoint.load_denoiser(tmp_path / "denoiser.safetensors")
    assert excinfo.value.exit_code == 5
