"""Models as data: groups of latents and frames, and which sizes and rates each can make."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pavdm_cli.errors import UsageError
from pavdm_cli.request import SIZES, Request, parse_size
from pavdm_cli.specs import MODELS, ModelSpec

POCKET = MODELS["pocket"]
FREE = replace(POCKET, name="free", group=(5, 17), sides=8, longest=1280, rates=(8, 30))


@pytest.mark.parametrize(("frames", "latents"), [(1, 5), (16, 5), (17, 5), (18, 10), (34, 10), (119, 35), (1445, 425)])
def test_frames_take_the_latents_of_whole_groups(frames, latents):
    assert FREE.latents(frames) == latents
    assert FREE.frames(latents) >= frames
    assert FREE.frames(latents - 5) < frames


@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_pocket_holds_two_frames_in_a_latent(frames):
    assert POCKET.latents(frames) == (frames + 1) // 2
    assert POCKET.frames(POCKET.latents(frames)) in (frames, frames + 1)


@pytest.mark.parametrize("spec", [POCKET, FREE])
def test_a_model_makes_its_own_size_and_rate(spec: ModelSpec):
    spec.check_size(spec.size)
    spec.check_rate(spec.fps)


@pytest.mark.parametrize("size", [(64, 104), (96, 64), (0, 0)])
def test_a_model_of_one_size_makes_no_other(size):
    with pytest.raises(UsageError, match="makes 96x64 pixels"):
        POCKET.check_size(size)


@pytest.mark.parametrize("size", [(64, 100), (56, 64), (64, 1288)])
def test_a_model_of_many_sizes_names_those_it_makes(size):
    FREE.check_size((64, 1280))
    with pytest.raises(UsageError, match="sides of 64 to 1280 in multiples of 8"):
        FREE.check_size(size)


@pytest.mark.parametrize("fps", [7.0, 31.0, 23.976, float("nan")])
def test_a_rate_a_model_cannot_make_is_refused(fps):
    FREE.check_rate(30.0)
    with pytest.raises(UsageError, match="8 to 30 whole frames/s"):
        FREE.check_rate(fps)


def test_a_request_takes_its_model_at_the_size_and_rate_it_asks_for(monkeypatch):
    monkeypatch.setitem(MODELS, "pocket", FREE)
    spec = Request("a ball", seconds=2, size=(128, 256), fps=12).spec
    assert (spec.size, spec.fps) == ((128, 256), 12)
    assert Request("a ball", seconds=2, fps=12).count == 24
    assert Request("a ball").spec == FREE


@pytest.mark.parametrize("name", SIZES)
def test_open_sora_makes_every_size_that_has_a_name(name):
    size = parse_size(name.upper())
    MODELS["opensora-v1.2"].check_size(size)
    assert size[0] == int(name.removesuffix("p"))


def test_what_is_fetched_is_pinned_to_full_commits():
    revisions = [part.revision for spec in MODELS.values() for part in spec.parts]
    assert len(revisions) == 3
    assert [revision for revision in revisions if not re.fullmatch("[0-9a-f]{40}", revision)] == []
