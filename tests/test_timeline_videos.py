"""Videos whose prompt changes: of every model and method, continued, reproduced, resumed."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import pavdm
from support.decoding import decoded_frames
from support.interrupted import snapshots
from support.tiers import integration, long
from support.wan import write_checkpoint

import pavdm_cli
from pavdm_cli.generation.prompts import active_prompt, blend
from pavdm_cli.generation.request import build_request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.video import read_metadata

DAY, NIGHT = "a red ball bouncing over the sea by day", "a red ball bouncing over the sea at night"
QUICK = ("--seed", 3, "--threads", 1, "--device", "cpu", "--steps", 6, "--warmup", 0, "--scale", 1)
POCKET = ("generate", DAY, *QUICK)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(*words: object, name: str = "v.mp4") -> np.ndarray:
    result = pavdm(*words, "-o", name, "--force")
    assert result.code == 0, result.err
    return decoded_frames(Path(name))


def raw(prompt: str, model: pavdm_cli.Model, **options: object) -> np.ndarray:
    return np.stack(list(model.generate(prompt, **options).frames()))


@pytest.fixture(scope="module")
def pocket() -> pavdm_cli.Model:
    return pavdm_cli.load_model("pocket", device="cpu", threads=1, steps=6, warmup=0, seed=3)


CLIPS = {name: {"method": name, "window": 4} for name in ("rn", "rw")}
METHODS = {"pa": {}, "fifo": {"method": "fifo"}, "full": {"ramp_up": "full"}, "windows": {"method": "windows"}, **CLIPS}

# At 3.5 s, frame 28, a chunk of `pa` begins, and the window has 5 others of 4 frames; of `fifo`, 5 others of 2. The
# next clip of 8 frames begins at frame 32, and the next window of 20 at frame 40.
FIRST_CHANGED = {"pa": 8, "full": 8, "fifo": 18, "rn": 32, "rw": 32, "windows": 40}


@pytest.mark.parametrize("method", ["pa", *integration("rn", "fifo", "windows"), *long("rw", "full")])
def test_the_same_prompt_again_changes_nothing_and_another_only_what_follows(
    method: str, pocket: pavdm_cli.Model
) -> None:
    options = {"frames": 44} | METHODS[method]
    plain = raw(DAY, pocket, **options)
    assert np.array_equal(plain, raw(DAY, pocket, at=[("1.5s", DAY)], blend=1, **options))
    changed = raw(DAY, pocket, at=[("3.5s", NIGHT)], **options)
    same = (plain == changed).all(axis=(1, 2, 3))
    assert int(np.argmin(same)) == FIRST_CHANGED[method]
    assert not same[FIRST_CHANGED[method] :].any()


def test_blending_begins_at_the_time_and_ends_where_the_switch_was_made_at_once() -> None:
    request = build_request(
        {"prompt": DAY, "seconds": 10, "at": [("4s", NIGHT), ("8s", DAY)], "blend": 2, "device": "cpu"}
    )
    config = resolve(request)
    weights = [active_prompt(config, chunk) for chunk in range(config.warmup, config.total_chunks)]
    assert weights[:9] == [(0, 1)] * 9  # at 4 s itself the new prompt has no weight yet
    assert weights[9:13] == [(1, 0.25), (1, 0.5), (1, 0.75), (1, 1)]
    assert weights[16:] == [(1, 1), (2, 0.25), (2, 0.5), (2, 0.75)]


def test_texts_are_blended_token_by_token() -> None:
    first, second = torch.randn(3, 4), torch.randn(5, 4)
    short, long = TextEmbedding(first), TextEmbedding(second)
    assert torch.equal(blend(short, short, 0.3).embeds, first)
    between = blend(short, long, 0.25)
    assert torch.allclose(between.embeds[:3], 0.75 * first + 0.25 * second[:3])
    assert torch.equal(between.embeds[3:], second[3:])
    assert between.mask is None
    masked = TextEmbedding(second, torch.tensor([True, False, True, False, False]))
    mixed = blend(short, masked, 0.5)
    assert mixed.mask.tolist() == [True, True, True, False, False]
    assert torch.equal(mixed.embeds[1], first[1])


@pytest.mark.integration
def test_guidance_in_two_passes_and_in_one_batch_follow_the_timeline(pocket: pavdm_cli.Model) -> None:
    options = {"frames": 16, "at": [("1s", "a blue kite at night")], "blend": 0.5, "guidance": 3}
    batched = raw(DAY, pocket, cfg_batching="batched", **options).astype(int)
    sequential = raw(DAY, pocket, cfg_batching="sequential", **options).astype(int)
    assert np.abs(batched - sequential).max() <= 3
    assert np.abs(batched - raw(DAY, pocket, **options | {"at": (), "blend": 0})).max() > 10


@pytest.mark.integration
def test_what_a_later_prompt_leaves_out_stays() -> None:
    make(*POCKET, "--frames", 12, "--at", "0.5s", "at night")
    (change,) = read_metadata(Path("v.mp4"))["timeline"]
    assert change == {"at": 0.5, "prompt": "at night", "caption": NIGHT}


@pytest.mark.integration
def test_several_seeds_and_a_file_of_prompts() -> None:
    Path("prompts.txt").write_text(f"0.5s: {NIGHT}\n1s: a blue kite\n")
    assert pavdm(*POCKET, "--frames", 10, "--timeline", "prompts.txt", "-n", 2, "-o", "v.mp4").code == 0
    stored = [read_metadata(Path(f"v-{seed}.mp4")) for seed in (3, 4)]
    assert [len(metadata["timeline"]) for metadata in stored] == [2, 2]
    assert not np.array_equal(decoded_frames(Path("v-3.mp4")), decoded_frames(Path("v-4.mp4")))


def test_a_resumed_video_has_the_same_bytes_after_a_change_and_within_a_blend() -> None:
    cuts = snapshots(*POCKET, "--frames", 28, "--at", "1s", NIGHT, "--blend", 1, name="v.mp4")
    whole = Path("v.mp4").read_bytes()
    for cut in (cuts[0], cuts[2], cuts[-1]):
        result = pavdm("resume", cut / "v.mp4")
        assert result.code == 0, result.err
        assert (cut / "v.mp4").read_bytes() == whole


def test_an_extension_counts_from_its_beginning_and_continues_the_last_prompt() -> None:
    make(*POCKET, "--frames", 12, "--at", "0.5s", "a blue kite at night")
    plain = make("extend", "v.mp4", "--frames", 12, *QUICK[:-4], name="plain.mp4")
    changed = make("extend", "v.mp4", "--frames", 12, *QUICK[:-4], "--at", "1s", DAY, name="changed.mp4")
    assert "blue kite" in read_metadata(Path("plain.mp4"))["caption"]
    assert len(plain) == len(changed) == 24
    assert np.array_equal(plain[:12], changed[:12])
    assert not np.array_equal(plain[12:], changed[12:])
    result = pavdm("extend", "v.mp4", "--frames", 12, *QUICK[:-4], "--at", "2s", DAY)
    assert (result.code, "beyond the end of the video, 1.5s" in result.err) == (2, True)


def test_an_extension_without_words_has_no_prompt_to_change(tmp_path: Path) -> None:
    from support import clips

    clips.make(tmp_path / "in.mp4", clips.grays(30, 64, 96))
    result = pavdm("extend", "in.mp4", "--frames", 12, *QUICK[:-4], "--at", "0.1s", DAY)
    assert (result.code, "needs an initial prompt" in result.err) == (2, True)


@pytest.mark.integration
def test_info_prints_the_timeline_and_a_command_that_makes_it_again() -> None:
    video = make(*POCKET, "--frames", 12, "--at", "0.5s", "at night", "--blend", 0.5)
    output = pavdm("info", "v.mp4").out
    assert f"\ntimeline          0.5s: {NIGHT}\n" in output
    assert np.array_equal(video, make(*shlex.split(output.splitlines()[-1])[1:], name="again.mp4"))


@pytest.mark.integration
def test_an_edited_clip_follows_the_timeline(pocket: pavdm_cli.Model) -> None:
    options = {"frames": 24, "method": "rn", "window": 4, "edit_ratio": 0.5}
    plain, changed = raw(DAY, pocket, **options), raw(DAY, pocket, at=[("1s", NIGHT)], **options)
    assert np.array_equal(plain[:8], changed[:8])
    assert not np.array_equal(plain[8:], changed[8:])


TINY = ("--steps", 4, "--seed", 3, "--threads", 1, "--device", "cpu")


@pytest.mark.integration
@pytest.mark.parametrize("kind", [*long("opensora"), "wan"])
def test_larger_models_follow_the_timeline(kind: str, folder: Path, tmp_path: Path) -> None:
    if kind == "wan":
        size = ("--model", write_checkpoint(tmp_path / "tiny"), "--size", "128x128", "--window", 4, "--chunk", 2)
    else:
        size = ("--model", folder, "--size", "72x64", "--window", 10, "--chunk", 5)
    words = ("generate", "a boat", *TINY, *size, "--guidance", 2, "--frames", 51)
    plain = make(*words)
    same = make(*words, "--at", "1s", "a boat", "--blend", 0.5)
    changed = make(*words, "--at", "1.2s", "a red balloon over green hills", "--blend", 0.7)
    assert np.array_equal(plain, same)
    assert np.array_equal(plain[:5], changed[:5])
    assert not np.array_equal(plain, changed)
    again = shlex.split(pavdm("info", "v.mp4").out.splitlines()[-1])[1:]
    assert np.array_equal(changed, make(*again, name="again.mp4"))
