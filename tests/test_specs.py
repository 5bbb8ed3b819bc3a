"""Models as data: groups of latents and frames, and which sizes and rates each can make."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pytest
from support.models import MODELS, OPENSORA, POCKET, find

from pavdm_cli.commands.output_options import Scale
from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.generation import request
from pavdm_cli.generation.request import SIZES, Request, frame_size, parse_size
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.pocket.model import PocketModel
from pavdm_cli.models.registry import get
from pavdm_cli.models.spec import ModelSpec

FREE = replace(POCKET, name="free", sizes=(), frame_rates=(), size_multiple=8, max_side=1280, fps_range=(8, 30))


def test_the_help_of_scale_says_the_defaults_of_pocket() -> None:
    (option,) = Scale.__metadata__
    pocket = PocketModel().spec  # as shipped; the tests' default is its small size
    small = pocket.at(pocket.sizes[1], pocket.fps)
    assert f"(pocket: {pocket.scale}, or {small.scale} at {small.size[1]}x{small.size[0]})" in option.help


LAYOUTS = {
    "pocket": LatentLayout((24, 8, 12), first=2, rest=2),
    "pocket at 16 fps": LatentLayout((24, 8, 12), first=3, rest=4),
    "open-sora": LatentLayout((4, 8, 8), first=1, rest=4, unit=5),
    "causal": LatentLayout((4, 8, 8), first=1, rest=4),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def counted(layout: LatentLayout, latents: int, begun: bool) -> int:
    """Frames by counting latent after latent."""
    firsts = (at == 0 and not begun if layout.unit == 1 else at % layout.unit == 0 for at in range(latents))
    return sum(layout.first if is_first else layout.rest for is_first in firsts)


@every_layout
@pytest.mark.parametrize("begun", [False, True])
def test_frames_of_latents_follow_one_another(layout: LatentLayout, begun: bool) -> None:
    for first in range(12):
        for last in range(first, 13):
            found = layout.frame_range(first, last, begun)
            assert found == range(counted(layout, first, begun), counted(layout, last, begun))


@every_layout
@pytest.mark.parametrize("begun", [False, True])
def test_frames_take_the_fewest_whole_units_of_latents(layout: LatentLayout, begun: bool) -> None:
    for frames in range(1, 70):
        latents = layout.num_latents(frames, begun)
        assert latents % layout.unit == 0
        assert layout.num_frames(latents, begun) >= frames
        assert layout.num_frames(latents - layout.unit, begun) < frames or latents == layout.unit


@every_layout
def test_a_clip_has_no_latent_that_stands_for_more_than_it(layout: LatentLayout) -> None:
    for frames in range(70):
        latents = layout.filled_by(frames)
        assert layout.num_frames(latents) <= frames
        assert layout.num_frames(latents + layout.unit) > frames


def test_models_have_the_layouts_they_are_known_for() -> None:
    own = {name: get(name).layout(spec.size, spec.fps) for name, spec in MODELS.items()}
    assert own["pocket"] == LAYOUTS["pocket"]
    assert (own["opensora-v1.2"].unit_frames, own["opensora-v1.2"].unit) == (17, 5)


@pytest.mark.parametrize("spec", [POCKET, FREE])
def test_a_model_makes_its_own_size_and_rate(spec: ModelSpec):
    spec.check_size(spec.size)
    spec.check_fps(spec.fps)


@pytest.mark.parametrize("size", [(64, 104), (96, 64), (0, 0)])
def test_a_model_of_one_size_makes_no_other(size):
    with pytest.raises(UsageError, match="supports 192x128 or 96x64"):
        POCKET.check_size(size)


@pytest.mark.parametrize("size", [(64, 100), (56, 64), (64, 1288)])
def test_a_model_of_many_sizes_names_those_it_makes(size):
    FREE.check_size((64, 1280))
    with pytest.raises(UsageError, match="sides of 64 to 1280 pixels in multiples of 8"):
        FREE.check_size(size)


@pytest.mark.parametrize("fps", [7.0, 31.0, 23.976, float("nan")])
def test_a_rate_a_model_cannot_make_is_refused(fps):
    FREE.check_fps(30.0)
    with pytest.raises(UsageError, match=r"8 to 30 fps \(integers only\)"):
        FREE.check_fps(fps)


def test_a_request_takes_its_model_at_the_size_and_rate_it_asks_for(monkeypatch):
    monkeypatch.setattr(request, "find", lambda name: replace(get("pocket"), spec=FREE))
    spec = Request("a ball", seconds=2, size=(128, 256), fps=12).spec
    assert (spec.size, spec.fps) == ((128, 256), 12)
    assert Request("a ball", seconds=2, fps=12).frame_count == 24
    assert Request("a ball").spec == FREE


def test_a_request_whose_model_is_known_already_goes_to_another_process():
    sent = Request("a ball", size=(128, 192), fps=16)
    assert sent.spec.fps == 16
    received = pickle.loads(pickle.dumps(sent))
    assert (received, received.spec) == (sent, sent.spec)


@pytest.mark.parametrize("name", SIZES)
def test_open_sora_makes_every_size_that_has_a_name(name):
    size = parse_size(name.upper())
    MODELS["opensora-v1.2"].check_size(size)
    assert abs(size[0] - int(name.removesuffix("p"))) <= 4


def test_what_is_fetched_is_pinned_to_full_commits():
    parts = [part for spec in MODELS.values() for part in spec.parts]
    pinned = [part for part in parts if re.fullmatch("[0-9a-f]{40}", part.revision)]
    assert len(pinned) == 3
    assert {part.revision for part in parts if part not in pinned} == {"main"}  # looked up and shown by `models pull`


SHAPES = ("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("aspect", SHAPES)
def test_a_named_size_in_another_shape_has_about_as_many_pixels_and_that_shape(name, aspect):
    height, width = parse_size(name, aspect)
    wide, high = map(int, aspect.split(":"))
    assert height % 8 == width % 8 == 0
    assert height * width == pytest.approx(SIZES[name][0] * SIZES[name][1], rel=0.07)
    assert width / height == pytest.approx(wide / high, rel=0.08)


def test_the_shape_a_name_stands_for_is_its_own():
    assert parse_size("720p", "16:9") == parse_size("720p") == (720, 1280)
    assert parse_size("720p", "9:16") == (1280, 720)
    assert frame_size(None, "", OPENSORA) is None
    assert frame_size(None, "1:1", OPENSORA) == (320, 320)
    assert frame_size("480p", "", MODELS["wan2.2-ti2v-5b"]) == (480, 832)
    assert frame_size("64x96", "", POCKET) == (96, 64)


@pytest.mark.parametrize("aspect", ["wide", "0:1", "1:0", "16x9", "1:9", "-1:2", "1:2:3"])
def test_a_shape_that_is_none_is_refused(aspect):
    with pytest.raises(UsageError, match="WIDTH:HEIGHT"):
        parse_size("240p", aspect)


def test_a_size_in_pixels_has_its_shape():
    with pytest.raises(UsageError, match="needs a named size"):
        parse_size("640x480", "1:1")


def test_a_file_is_no_folder_of_weights(tmp_path):
    (tmp_path / "denoiser.safetensors").touch()
    with pytest.raises(ModelError, match="is a file") as caught:
        find(str(tmp_path / "denoiser.safetensors"))
    assert "pocket, opensora-v1.2" in caught.value.hint
