"""Sources of options: flags, variables, three files and the model's defaults, in order of precedence."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from support.command import pavdm
from support.options import ROOT, as_text, parsed, sample

from pavdm_cli.commands import common, config, plan
from pavdm_cli.commands.config_file import to_toml
from pavdm_cli.commands.flags import request_from_params
from pavdm_cli.commands.option_sources import option_sources, variable_name
from pavdm_cli.commands.option_values import command_options
from pavdm_cli.errors import UsageError
from pavdm_cli.generation.resolve import resolve

GENERATE = command_options(ROOT.commands["generate"])
PROMPT = "a red ball over green hills at noon"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "user_file", lambda: Path("user.toml"))


FILES = {"--config": "given.yaml", "project": "pavdm.toml", "user": "user.toml"}
SOURCES = ("flag", "variable", *FILES)  # the highest first; below them all are the model's defaults


@pytest.mark.parametrize("chosen", [c for n in range(6) for c in itertools.combinations(SOURCES, n)], ids="+".join)
def test_the_highest_source_wins(chosen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {source: str(number) for number, source in enumerate(SOURCES, 10)}
    for source in FILES.keys() & {*chosen}:
        separator = ":" if source == "--config" else "="
        Path(FILES[source]).write_text(f"steps {separator} {steps[source]}\n")
    if "variable" in chosen:
        monkeypatch.setenv("PAVDM_STEPS", steps["variable"])
    words = ["--steps", steps["flag"]] if "flag" in chosen else []
    words += ["--config", FILES["--config"]] if "--config" in chosen else []
    context = parsed("generate", PROMPT, *words)
    assert context.params["steps"] == (int(steps[chosen[0]]) if chosen else None)
    names = {"flag": "--steps", "variable": "PAVDM_STEPS"} | FILES
    sources = option_sources(context)
    assert sources.get("steps") == ((int(steps[chosen[0]]), names[chosen[0]]) if chosen else None)


def test_a_section_stands_above_the_keys_outside_and_below_a_higher_file() -> None:
    Path("user.toml").write_text("steps = 1\n[generate]\nsteps = 2\ncrf = 3\n")
    assert parsed("generate", PROMPT).params["steps"] == 2
    assert parsed("extend", "a.mp4").params["steps"] == 1
    Path("pavdm.toml").write_text("steps = 4\n")
    assert (parsed("generate", PROMPT).params["steps"], parsed("generate", PROMPT).params["crf"]) == (4, 3)


def test_keys_outside_sections_are_for_commands_that_make_videos() -> None:
    Path("pavdm.toml").write_text("steps = 30\nimage = 'a.png'\n[train.denoiser]\nsteps = 7\n")
    root = ROOT.make_context("pavdm", ["generate"])
    train = ROOT.commands["train"].make_context("train", ["vae"], parent=root)
    assert train.command.commands["denoiser"].make_context("denoiser", [], parent=train).params["steps"] == 7
    vae = train.command.commands["vae"].make_context("vae", [], parent=train)
    assert vae.params["steps"] != 30
    assert parsed("extend", "a.mp4").params["steps"] == 30  # which has no --image


@pytest.mark.parametrize("higher", ["seconds", "frames"])
def test_a_length_in_a_higher_source_replaces_the_other_kind(higher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = {"seconds": "frames", "frames": "seconds"}[higher]
    Path("pavdm.toml").write_text(f"{lower} = 5\n")
    assert (
        parsed("generate", PROMPT, f"--{higher}", "3").params | {higher: 3, lower: None}
        == parsed("generate", PROMPT, f"--{higher}", "3").params
    )
    Path("given.toml").write_text(f"{higher} = 4\n")
    assert parsed("generate", PROMPT, "--config", "given.toml").params[lower] is None
    monkeypatch.setenv(f"PAVDM_{higher.upper()}", "6")
    assert parsed("generate", PROMPT).params[lower] is None


@pytest.mark.parametrize("key", GENERATE)
def test_every_option_can_be_in_a_file_and_in_a_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    option, value = GENERATE[key], sample(GENERATE[key])
    prompt = [PROMPT] if key != "prompt" else []
    Path("given.toml").write_text(to_toml({key: value}))
    from_file = parsed("generate", *prompt, "--config", "given.toml").params[option.name]
    text = as_text(option, value) if option.is_list else str(value).lower() if value is True else str(value)
    monkeypatch.setenv(variable_name(key, ("generate",)), text)
    assert parsed("generate", *prompt).params[option.name] == from_file
    if key not in ("quiet", "verbose"):  # which act by their callbacks
        assert from_file == (Path(value) if option.type is Path else value)


MISTAKES = {
    "stepz = 3": ("pavdm.toml: unknown option 'stepz'", "did you mean steps?"),
    "[generat]\nsteps = 3": ("pavdm.toml: unknown section 'generat'", "did you mean generate?"),
    "[generate]\nreencod = true": ("pavdm.toml: [generate] unknown option 'reencod'", "did you mean reencode?"),
    "[bench.throughput]\nsamplez = 3": ("pavdm.toml: [bench.throughput] unknown option 'samplez'", "samples?"),
    "steps = 6.5": ("pavdm.toml: steps is 6.5, not an integer", "--help"),
    "steps = true": ("pavdm.toml: steps is True, not an integer", "--help"),
    "seconds = nan": ("pavdm.toml: seconds is nan, not a number", "--help"),
    "threads = -1": ("pavdm.toml: threads is -1, not an integer from 0 to 1024", "--help"),
    "compile = 'yes'": ("pavdm.toml: compile is 'yes', not true or false", "--help"),
    "ramp-up = 'ful'": ("pavdm.toml: ramp-up is 'ful', not 'grow' or 'full'", "did you mean full?"),
    "lora = [1]": ("pavdm.toml: lora is 1, not a string or a list of them", "--help"),
    "crf = 99": ("pavdm.toml: crf must be 0 to 51, got 99", "18 is visually lossless"),
    "device = 'gpu'": ("pavdm.toml: device must be one of auto, cpu, cuda, mps, got 'gpu'", "auto is the default"),
    "steps = 0": ("pavdm.toml: steps", ""),
    "steps = ": ("pavdm.toml: it is not TOML: Invalid value (at", "valid one"),
    'seed = "7"': ("pavdm.toml: seed is '7', not an integer", "--help"),
    "when = 2020-01-01": ("pavdm.toml: unknown option 'when'", ""),
    "prompt = 2020-01-01": ("pavdm.toml: prompt is", ""),
    'output = ""': ("pavdm.toml: output must not be an empty path", ""),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_file_is_one_line_with_file_and_key(text: str) -> None:
    Path("pavdm.toml").write_text(text)
    code, out, err = pavdm("generate", PROMPT, "--seed", "1")
    message, hint = MISTAKES[text]
    assert (code, out) == (2, "")
    error, *help_lines = err.splitlines()
    assert error.startswith(f"error: {message}")
    assert len(help_lines) <= 1
    assert hint in "".join(help_lines)


def test_a_wrong_variable_is_named_and_a_misspelt_one_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVDM_THREADS", "many")
    assert pavdm("generate", PROMPT).err.startswith("error: PAVDM_THREADS: it must be a valid integer")
    monkeypatch.setenv("PAVDM_THREADS", "-1")
    assert pavdm("generate", PROMPT).err.startswith("error: PAVDM_THREADS: it must be greater")
    monkeypatch.delenv("PAVDM_THREADS")
    monkeypatch.setenv("PAVDM_CRF", "99")
    assert pavdm("generate", PROMPT).err.startswith("error: PAVDM_CRF: --crf must be 0 to 51, got 99")
    monkeypatch.delenv("PAVDM_CRF")
    monkeypatch.setenv("PAVDM_STEPZ", "3")
    note = "note: PAVDM_STEPZ does not set any option of pavdm: did you mean PAVDM_STEPS?"
    assert note in pavdm("models", "path", "pocket").err


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    Path("pavdm.toml").write_text("stepz = 3\ncrf = 'low'\n[bench.throughput]\nthreads = 'all'\n")
    result = pavdm("generate", PROMPT)
    assert result.code == 2
    assert result.err.splitlines()[0] == (
        "error: pavdm.toml has 3 mistakes: unknown option 'stepz'; crf is 'low', not an integer; "
        "[bench.throughput] threads is 'all', not an integer from 0 to 1024"
    )
    assert "did you mean steps?" in result.err
    Path("pavdm.toml").write_text("".join(f"key{number} = 1\n" for number in range(9)))
    assert "has 9 mistakes" in pavdm("generate", PROMPT).err
    assert "and 4 more" in pavdm("generate", PROMPT).err


@pytest.mark.parametrize("text", ["steps = 'few'\n", "steps = \n", "[bench.throughput]\nthreads = 'all'\n"])
def test_a_wrong_file_does_not_stop_a_command_that_it_has_nothing_for(text: str) -> None:
    Path("pavdm.toml").write_text(text)
    result = pavdm("models", "path", "pocket")
    assert result.code == 0
    assert result.err.startswith("note: pavdm.toml is ignored: ")
    assert pavdm("generate", PROMPT).code == 2
    assert pavdm("models", "path", "pocket", "--config", "pavdm.toml").code == 2
    if "bench" in text:
        assert pavdm("bench", "throughput").code == 2


@pytest.mark.integration
def test_the_plan_says_where_every_value_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    others = "aspect = '1:1'\ncamera-motion = 'pan left'\naesthetic-score = 6\n"  # of which pocket can use none
    Path("pavdm.toml").write_text(f"steps = 6\n{others}")
    monkeypatch.setenv("PAVDM_SEED", "4")
    code, out, err = pavdm("generate", PROMPT, "--plan", "--json", "--device", "cpu")
    assert code == 0, err
    sources = {name: row["source"] for name, row in json.loads(out)["settings"].items()}
    assert sources == dict.fromkeys(sources, "default of pocket") | {
        "prompt": "command line",
        "steps": "pavdm.toml",
        "seed": "PAVDM_SEED",
        "device": "--device",
        **dict.fromkeys(("seconds", "crf", "output"), "default"),
        **dict.fromkeys(("threads", "precision", "attention", "context_cache"), "this machine"),
    }
    assert {"window", "size", "guidance"} < sources.keys()


def test_the_plan_tells_what_is_chosen_for_this_machine() -> None:
    request = request_from_params(parsed("generate", PROMPT).params | {"device": "cpu"})
    config = resolve(request)
    chosen = plan.execution_settings(config, {})
    assert chosen == {
        "device": ("cpu", "this machine"),
        "threads": (str(torch.get_num_threads()), "this machine"),
        "precision": (config.execution.precision, "this machine"),
        "attention": ("sdpa", "this machine"),
        "context_cache": ("reuse", "this machine"),
    }
    flags = {"attention": ("sdpa-math", "--attention"), "context_cache": ("recompute", "--context-cache")}
    assert plan.execution_settings(config, flags | {"device": ("auto", "--device")}).keys() == chosen.keys() - flags
    with_sizes = resolve(replace(request, model="opensora-v1.2"))
    assert plan.execution_settings(with_sizes, {}).keys() == chosen.keys() | {"cfg_batching", "vae_tiling"}


def test_what_a_model_cannot_use_is_skipped_from_files_and_rejected_from_flags() -> None:
    Path("pavdm.toml").write_text("aspect = '1:1'\ncamera-motion = 'pan left'\naesthetic-score = 6\n")
    context = parsed("generate", PROMPT, "--seed", "3")
    common.check_model_options(context, "pocket")
    assert option_sources(context).keys() == {"prompt", "seed"}
    assert request_from_params(context.params).options == {}
    common.check_model_options(parsed("generate", PROMPT), "opensora-v1.2")
    with pytest.raises(UsageError, match="--camera-motion has no effect with pocket"):
        common.check_model_options(parsed("generate", PROMPT, "--camera-motion", "pan left"), "pocket")


def test_length_seed_scale_and_file_are_settings_too() -> None:
    context = parsed("generate", PROMPT, "--frames", "9", "--device", "cpu")
    request = request_from_params(context.params | {"seed": 5})
    request = replace(request, output=replace(request.output, path=Path("v.mp4")))
    table = plan.settings_with_sources(resolve(request), plan.request_settings(request, option_sources(context)))
    rows = {name: table.get(name) for name in ("frames", "seconds", "seed", "scale", "crf", "output")}
    assert rows == {
        "frames": ("9", "--frames"),
        "seconds": None,
        "seed": ("5", "random"),
        "scale": ("4", "default of pocket"),
        "crf": ("18", "default"),
        "output": ("v.mp4", "default"),
    }


def test_what_decides_every_setting_is_named() -> None:
    Path("pavdm.toml").write_text("steps = 6\n")
    context = parsed("generate", PROMPT, "--device", "cpu")
    table = plan.settings_with_sources(resolve(request_from_params(context.params)), option_sources(context))
    assert {name: table[name] for name in ("steps", "device", "window", "size", "prompt")} == {
        "steps": ("6", "pavdm.toml"),
        "device": ("cpu", "--device"),
        "window": ("12", "default of pocket"),
        "size": ("96x64", "default of pocket"),
        "prompt": (PROMPT, "command line"),
    }


@pytest.mark.integration
def test_info_writes_a_file_that_makes_the_same_video_again() -> None:
    words = ("--frames", "2", "--steps", "6", "--threads", "1", "--seed", "3", "--device", "cpu", "--crf", "30")
    assert pavdm("generate", "a red ball, drifting over sand dunes at dawn", *words, "-o", "a.mp4").code == 0
    Path("a.toml").write_text(pavdm("info", "--config", "a.mp4").out)
    result = pavdm("generate", "--config", "a.toml", "-o", "b.mp4", "-q")
    assert (result.code, result.err) == (0, "")
    assert pavdm("info", "--config", "b.mp4").out.partition("\n")[2] == Path("a.toml").read_text().partition("\n")[2]
    with av.open("a.mp4") as first, av.open("b.mp4") as second:
        assert [bytes(packet) for packet in first.demux()] == [bytes(packet) for packet in second.demux()]
    Path("empty.mp4").write_bytes(b"")
    assert pavdm("info", "--config", "empty.mp4").code == 3


def test_toml_holds_any_text() -> None:
    from pavdm_cli.commands.config_file import parse_toml

    values = {"a": 'quotes " \\ \x7f\t\n\u2028 é', "b-c": [1, 0.5, True], "d": Path("x/y")}
    assert parse_toml(to_toml(values)) == values | {"d": "x/y"}
    with pytest.raises(UsageError, match="is not UTF-8"):
        to_toml({"a": "\udcff"})
