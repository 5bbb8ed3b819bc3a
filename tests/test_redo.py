"""`pavdm redo`: a span is regenerated, all other packets and frames stay identical, and the metadata records it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.command import CommandResult, pavdm
from support.decoding import decoded_frames
from support.interrupted import RED, SAMPLED, made, snapshots
from test_video_splice import check_outside, packets

from pavdm_cli.generation import pipeline, span_context, write_redo
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderState
from pavdm_cli.generation.redo import Span
from pavdm_cli.generation.span_context import SpanContext
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import SampledChunk
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.video import read_metadata

FRAMES = 80  # segments begin at frames 0, 24, 48 and 72
WORDS = (*RED, "--frames", FRAMES, "--keep-state")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with its latents."""
    folder = tmp_path_factory.mktemp("film")
    result = pavdm(*WORDS, "-o", folder / "v.mp4")
    assert result.code == 0, result.err
    return folder


@pytest.fixture(autouse=True)
def in_folder(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it, in the current folder."""
    shutil.copytree(film, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def redone(*words: object, name: str = "new.mp4") -> CommandResult:
    result = pavdm("redo", "v.mp4", *words, "-o", name)
    assert result.code == 0, result.err
    return result


MORE = pytest.mark.integration
SPANS = [(("4s", "5s"), 24, 48), pytest.param(("0", "1"), 0, 24, marks=MORE), (("5.9", "9"), 24, 72)]


@pytest.mark.parametrize(("span", "first", "end"), SPANS)
def test_everything_outside_the_span_stays_bit_for_bit(span: tuple[str, str], first: int, end: int) -> None:
    result = redone("--from", span[0], "--to", span[1], "--seed", 5)
    assert f"regenerating {first / 8:g} s to {end / 8:g} s, frames {first} to {end - 1}" in result.err
    check_outside(Path("v.mp4"), Path("new.mp4"), first, end)
    assert "no stored latents" not in result.err


@MORE
def test_without_an_end_the_rest_is_made_again() -> None:
    redone("--from", "7s", "--seed", 5)
    check_outside(Path("v.mp4"), Path("new.mp4"), 48, FRAMES)


@pytest.mark.integration
def test_the_whole_video_with_its_own_seed_is_the_original() -> None:
    redone("--seed", 1)
    assert packets(Path("new.mp4")) == packets(Path("v.mp4"))


@MORE
def test_the_same_seed_gives_the_same_file_and_another_one_does_not() -> None:
    for name, seed in (("a.mp4", 5), ("b.mp4", 5), ("c.mp4", 6)):
        redone("--from", "4s", "--to", "5s", "--seed", seed, name=name)
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()
    assert not np.array_equal(decoded_frames(Path("a.mp4"))[30], decoded_frames(Path("c.mp4"))[30])


@MORE
def test_without_latents_the_frames_around_the_span_are_encoded() -> None:
    redone("--from", "4s", "--to", "5s", "--seed", 5, name="kept.mp4")
    Path("v.partial.mp4.latents").unlink()
    result = redone("--from", "4s", "--to", "5s", "--seed", 5)
    assert "no stored latents" in result.err
    check_outside(Path("v.mp4"), Path("new.mp4"), 24, 48)
    pairs = zip(decoded_frames(Path("kept.mp4"))[24:48], decoded_frames(Path("new.mp4"))[24:48], strict=True)
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]) < 6


def context_of_span(monkeypatch: pytest.MonkeyPatch, *words: object) -> SpanContext:
    """The latents that `redo` conditions a span on."""
    recorded = []
    real = write_redo.state_before_span

    def record(config: GenerationConfig, model: ModelRunner, span: Span, context: SpanContext) -> RenderState:
        recorded.append(context)
        return real(config, model, span, context)

    with monkeypatch.context() as patch:
        patch.setattr(write_redo, "state_before_span", record)
        redone("--seed", 5, *words)
    (context,) = recorded
    return context


def test_a_span_gets_a_sink_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules: list[Schedule] = []
    real = write_redo.state_before_span

    def record(config: GenerationConfig, *arguments: Any) -> RenderState:
        schedules.append(config.schedule)
        return real(config, *arguments)

    monkeypatch.setattr(write_redo, "state_before_span", record)
    redone("--from", "3s")
    (schedule,) = schedules
    start = 6 + 2 * schedule.capacity  # chunks of 4 frames, from frame 24 on
    assert (schedule.sink, schedule.sink_changes) == (range(start, start + 1), ())


def test_a_span_from_the_start_continues_the_warmup_of_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("generate", "a red ball", *SAMPLED, "--steps", 6, "--seconds", 6)
    chunks: list[torch.Tensor] = []
    sample = pipeline.sample_chunks

    def record(*arguments: Any) -> Iterator[SampledChunk]:
        on_warmup = arguments[-1]
        return sample(*arguments[:-1], on_warmup=lambda chunk: (chunks.append(chunk), on_warmup(chunk)))

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "sample_chunks", record)
        made(*words, "-f", name="v.mp4")
    assert torch.equal(context_of_span(monkeypatch, "--to", "1s").before, torch.cat(chunks, dim=1))


@MORE
def test_a_span_from_the_start_leads_into_the_frames_after_it() -> None:
    made("generate", "a red ball bouncing in the desert", *SAMPLED, "--seconds", 8, "-f", name="v.mp4")
    redone("--to", "1s", "--seed", 5)
    joins = []
    for name in ("v.mp4", "new.mp4"):
        frames = [frame.astype(int) for frame in decoded_frames(Path(name))]
        joins.append(np.abs(frames[24] - frames[23]).mean())
    assert joins[1] < 2 * joins[0]


@MORE
def test_a_span_from_the_start_with_another_prompt_has_a_warmup_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made("generate", "a red ball", *SAMPLED, "--steps", 6, "--seconds", 6, "-f", name="v.mp4")
    monkeypatch.setattr(write_redo, "state_before_span", None)
    redone("--to", "1s", "--prompt", "a green boat")


@MORE
def test_latents_of_another_video_of_that_name_are_not_used() -> None:
    made(*RED, "--frames", FRAMES, "--seed", 2, name="other.mp4")
    shutil.copy("other.mp4", "v.mp4")
    assert "no stored latents" in redone("--from", "4s", "--to", "5s").err


def test_the_file_says_what_was_made_again_and_info_how() -> None:
    redone("--from", "4s", "--to", "5s", "--seed", 5, "--prompt", "a green boat")
    before, after = read_metadata("v.mp4"), read_metadata("new.mp4")
    assert before is not None
    assert after is not None
    (record,), ranges = after.pop("redo"), after.pop("prompt_ranges")
    assert [(part["start"], part["end"]) for part in ranges] == [(0, 3), (3, 6), (6, None)]
    assert ranges[1]["prompt"].startswith("a green boat")
    assert ranges[0]["prompt"] == ranges[2]["prompt"]
    assert after == before
    assert [record[name] for name in ("first", "end", "seed", "prompt")] == [24, 48, 5, "a green boat"]
    lines = pavdm("info", "new.mp4").out.splitlines()
    assert any(line.startswith("redo") and "frames 24 to 47" in line and "a green boat" in line for line in lines)
    command = shlex.split(lines[-1])
    assert pavdm(*command[1:], "-o", "again.mp4").code == 0
    assert packets(Path("again.mp4")) == packets(Path("new.mp4"))
    assert json.loads(pavdm("info", "new.mp4", "--json").out)["redo"] == [record]


@pytest.mark.parametrize("keep_state", [True, pytest.param(False, marks=MORE)])
@pytest.mark.integration
def test_both_printed_commands_make_the_same_frames_elsewhere(
    keep_state: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keep_state:
        Path("v.partial.mp4.latents").unlink()
    redone("--from", "4s", "--to", "5s", "--seed", 5)
    commands = [shlex.split(line)[1:] for line in pavdm("info", "new.mp4").out.splitlines()[-2:]]
    assert [command[0] for command in commands] == ["generate", "redo"]
    assert ("--keep-state" in commands[0]) is keep_state
    comments = [line for line in pavdm("info", "--config", "new.mp4").out.splitlines() if line.startswith("#")]
    assert "makes the original of new.mp4" in comments[0]
    assert shlex.split(comments[1].removeprefix("# "))[1:] == commands[1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for command, name in zip(commands, ("v.mp4", "new.mp4"), strict=True):
        assert pavdm(*command, "-o", name).code == 0
    assert packets(Path("new.mp4")) == packets(tmp_path / "new.mp4")


@MORE
def test_another_prompt_is_announced_as_visible() -> None:
    assert (
        "the transition at the end of the span may be visible" in redone("--from", "4", "--to", "5", "-p", "a boat").err
    )
    assert "may be visible" not in redone("--from", "4", "--to", "5", name="other.mp4").err
    assert "may be visible" not in redone("--from", "7", "--to", "10", "-p", "a boat", name="end.mp4").err


@MORE
def test_the_default_name_is_free_and_the_original_stays() -> None:
    before = Path("v.mp4").read_bytes()
    for name in ("v-redo.mp4", "v-redo-2.mp4"):
        assert pavdm("redo", "v.mp4", "--from", "7s").out == f"{name}\n"
    assert Path("v.mp4").read_bytes() == before


@MORE
def test_in_place_needs_force_and_drops_latents_that_no_longer_fit() -> None:
    before = Path("v.mp4").read_bytes()
    result = pavdm("redo", "v.mp4", "--from", "7s", "-o", "v.mp4")
    assert result.code == 4
    assert "use --force" in result.err
    redone("--from", "7s", "--seed", 5, name="new.mp4")
    result = pavdm("redo", "v.mp4", "--from", "7s", "--seed", 5, "-o", "v.mp4", "--force")
    assert (result.code, result.out) == (0, "v.mp4\n")
    assert Path("v.mp4").read_bytes() != before
    assert packets(Path("v.mp4")) == packets(Path("new.mp4"))
    assert sorted(path.name for path in Path().iterdir()) == ["new.mp4", "v.mp4"]


@MORE
def test_a_span_can_be_made_again_twice() -> None:
    redone("--from", "4s", "--to", "5s", "--seed", 5)
    result = pavdm("redo", "new.mp4", "--from", "7s", "--seed", 6, "-o", "newer.mp4")
    assert result.code == 0, result.err
    check_outside(Path("new.mp4"), Path("newer.mp4"), 48, FRAMES)
    records = (read_metadata("newer.mp4") or {})["redo"]
    assert [record["seed"] for record in records] == [5, 6]


@pytest.mark.integration
def test_an_interrupted_redo_resumes_to_the_same_bytes() -> None:
    cuts = snapshots("redo", "v.mp4", "--from", "3s", "--to", "9s", "--seed", 5, name="new.mp4")
    assert len(cuts) == 12
    for cut in (cuts[0], cuts[8]):
        result = pavdm("resume", cut / "new.mp4")
        assert result.code == 0, result.err
        assert (cut / "new.mp4").read_bytes() == Path("new.mp4").read_bytes()
        assert [path.name for path in cut.iterdir()] == ["new.mp4"]


@MORE
def test_the_wrong_latents_on_the_right_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    redone("--from", "4s", "--to", "5s", "--seed", 5, name="right.mp4")
    real = span_context.LatentsReader.read
    monkeypatch.setattr(span_context.LatentsReader, "read", lambda self, latents: real(self, latents).flip(-1))
    redone("--from", "4s", "--to", "5s", "--seed", 5)
    assert packets(Path("new.mp4")) != packets(Path("right.mp4"))


REFUSED = {
    "no such file": (("nothing.mp4",), 3, "does not exist"),
    "after the end": (("v.mp4", "--from", "11s"), 2, "outside the video of 10 s"),
    "end after the end": (("v.mp4", "--from", "1s", "--to", "12s"), 2, "outside the video of 10 s"),
    "end before start": (("v.mp4", "--from", "4s", "--to", "4s"), 2, "is not before --to"),
    "no time": (("v.mp4", "--from", "soon"), 2, "'soon' is not a valid time"),
    "other container": (("v.mp4", "-o", "x.mkv"), 2, "is not a .mp4 file"),
    "existing": (("v.mp4", "-o", "other.mp4"), 4, "exists"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_requests_are_rejected_before_any_work(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.mp4").write_bytes(b"x")
    monkeypatch.setattr(write_redo, "write_redo", None)
    words, code, message = REFUSED[case]
    result = pavdm("redo", *words)
    assert result.code == code
    assert message in result.err
    assert len(result.err.splitlines()) <= 3
