"""`--loop`: the end of a video leads into its start; stored, printed, resumed, and rejected where impossible."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from support.command import pavdm
from support.decoding import decoded_frames
from support.interrupted import QUICK, RED, made, snapshots
from support.requests import make_request
from test_video_splice import packets

from pavdm_cli.errors import UsageError
from pavdm_cli.generation import checkpoint
from pavdm_cli.generation.checks import check
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.video import read_metadata

FRAMES = 72  # 18 chunks, of which the last twelve see the first two; the others are the first segment
LOOP = (*RED, "--frames", FRAMES, "--loop")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.integration
def test_a_loop_is_the_same_video_until_its_end_turns_back() -> None:
    made(*LOOP, name="loop.mp4")
    made(*RED, "--frames", FRAMES, name="plain.mp4")
    loop, plain = decoded_frames(Path("loop.mp4")), decoded_frames(Path("plain.mp4"))
    same = [np.array_equal(a, b) for a, b in zip(loop, plain, strict=True)]
    assert same == [number < 24 for number in range(FRAMES)]
    assert (read_metadata("loop.mp4") or {})["loop"] is True
    assert "loop" not in (read_metadata("plain.mp4") or {})
    command = shlex.split(pavdm("info", "loop.mp4").out.splitlines()[-1])
    assert "--loop" in command
    assert pavdm(*command[1:], "-o", "again.mp4").code == 0
    assert packets(Path("again.mp4")) == packets(Path("loop.mp4"))


@pytest.mark.integration
def test_a_loop_resumes_to_the_same_bytes_before_and_after_its_start_is_needed() -> None:
    cuts = snapshots(*LOOP, name="v.mp4")
    assert len(cuts) == 18
    known = [
        checkpoint.read_checkpoint(cut / "v.partial.mp4.state").render.sampler.right_context
        for cut in (cuts[0], cuts[3])
    ]
    assert [None if latents is None else latents.shape[1] for latents in known] == [None, 4]
    for cut in (cuts[1], cuts[3], cuts[14]):
        assert pavdm("resume", cut / "v.mp4").code == 0
        assert (cut / "v.mp4").read_bytes() == Path("v.mp4").read_bytes()


def test_a_loop_has_whole_chunks_and_says_so() -> None:
    config = resolve(make_request("a red ball", frames=46, loop=True))
    assert config.frames == 48
    assert "generating 48 frames instead of 46: a loop must be a whole number of chunks" in config.notes
    assert not any("instead" in note for note in resolve(make_request("a red ball", frames=48, loop=True)).notes)


@pytest.mark.integration
def test_the_end_of_a_loop_made_again_leads_to_its_start_too() -> None:
    made(*LOOP, "--keep-state", name="v.mp4")
    assert pavdm("redo", "v.mp4", "--seed", 1, "-o", "whole.mp4").code == 0
    assert packets(Path("whole.mp4")) == packets(Path("v.mp4"))
    assert pavdm("redo", "v.mp4", "--from", "4s", "--seed", 5, "-o", "new.mp4").code == 0
    frames, original = decoded_frames(Path("new.mp4")), decoded_frames(Path("v.mp4"))
    made(*RED, "--frames", FRAMES, "--seed", 5, name="other.mp4")
    ends = frames[-1], decoded_frames(Path("other.mp4"))[-1]
    change = [np.abs(end.astype(int) - original[0]).mean() for end in ends]
    assert change[0] < change[1]


REFUSED = {
    "short": ({"frames": 28}, "--loop needs at least 4 s, 32 frames, got 28"),
    "clips": ({"method": "rn"}, "--method rn, which has no progressive noise levels"),
    "endless": ({"forever": True}, "--seconds forever"),
    "full window": ({"ramp_up": "full"}, "--ramp-up full"),
    "image": ({"image": Path("image.png")}, "a video that starts from existing frames"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_loop_that_makes_no_sense_is_rejected(case: str) -> None:
    values, message = REFUSED[case]
    request = make_request("a red ball", loop=True, **values)
    with pytest.raises(UsageError, match=message):
        resolve(request) if case == "short" else check(request)


@pytest.mark.parametrize(("model", "frames"), [("opensora-v1.2", 136), ("wan2.1-t2v-1.3b", 165)])
def test_units_and_first_latents_of_other_models_fit(model: str, frames: int) -> None:
    config = resolve(make_request("a red ball", model=model, frames=frames - 3, loop=True, device="cpu"))
    assert config.frames == frames
    assert len(config.schedule.latents(range(config.chunks))) == config.layout.num_latents(frames)
    assert config.schedule.right_context == len(config.schedule.latents(range(2)))


@pytest.mark.integration
def test_a_start_that_is_forgotten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = snapshots(*LOOP, name="v.mp4")
    real = checkpoint.SamplerState

    def without_start(**values: object) -> checkpoint.SamplerState:
        values["right_context"] = values["right_context"].flip(-1)  # type: ignore[attr-defined]
        return real(**values)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "SamplerState", without_start)
    assert pavdm("resume", cuts[3] / "v.mp4").code == 0
    assert (cuts[3] / "v.mp4").read_bytes() != Path("v.mp4").read_bytes()


def test_short_flags_are_one_line_and_exit_code_2() -> None:
    result = pavdm("generate", "a red ball", *QUICK, "--loop", "--frames", 8, "-o", "v.mp4")
    assert result.code == 2
    assert len(result.err.splitlines()) <= 3


def test_a_loop_returns_to_its_first_prompt() -> None:
    first, night = "a red ball drifting over green hills by day", ("--at", "3s", "at night")
    result = pavdm("generate", first, *QUICK, "--loop", *night, "--plan")
    assert result.code == 2
    assert "--loop needs the first prompt again at the end" in result.err
    assert f"--at TIME '{first}', with TIME below 10s" in result.err
    assert pavdm("generate", first, *QUICK, "--loop", *night, "--at", "6s", "by day", "--plan").code == 0
