"""Options without effect on a model: rejected if the video would differ from the request, else noted."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from support.clips import grays, make
from support.command import pavdm
from support.models import MODELS
from support.tiers import integration

import pavdm_cli
from pavdm_cli.app import app
from pavdm_cli.commands import train_options
from pavdm_cli.errors import UsageError
from pavdm_cli.generation.option_names import FOREIGN_NAMES, OWN_NAMES
from pavdm_cli.models.spec import IgnoredOption

IDLE = {option.flag: option for option in MODELS["pocket"].ignored}
VALUES = {"--aspect": "1:1", "--aesthetic-score": "6.5", "--motion-score": "4", "--camera-motion": "pan left"}
REFUSED = sorted(name for name, option in IDLE.items() if option.hint)


def panel(name: str, *path: str) -> dict[str, typer.core.TyperOption]:
    """The options of a command under a heading of its help."""
    command = typer.main.get_command(app)
    for word in path:
        command = command.commands[word]
    return {
        max(option.opts, key=len): option for option in command.params if getattr(option, "rich_help_panel", "") == name
    }


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("line", [("generate", "a red ball"), ("extend", "v.mp4")])
def test_options_that_pocket_cannot_follow_are_rejected_even_at_their_default(line, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = pavdm(*line, option, VALUES[option])
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: {option} has no effect with pocket: {IDLE[option].reason}",
        f"hint: {IDLE[option].hint}",
    ]


@pytest.mark.parametrize("command", ["generate", "extend"])
def test_what_makes_no_difference_to_pocket_is_a_note(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "v.mp4", grays(9))
    line = {"generate": ["a red ball"], "extend": ["v.mp4", "-p", "a red ball"]}[command]
    code, out, err = pavdm(command, *line, "--text-device", "cpu", "--plan", "--device", "cpu")
    assert (code, "total on cpu" in out) == (0, True)
    note = "note: --text-device has no effect with pocket: it encodes the prompt on its own device"
    assert err.splitlines().count(note) == 1
    assert "has no effect" not in pavdm(command, *line, "--plan", "--device", "cpu").err


IN_PLACE = "note: --offload has no benefit on a CPU: it only uses more memory"
AT_ONCE = "note: --cfg-batching has no effect here: each step is a single forward pass"


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ("--offload model --cfg-batching sequential", [IN_PLACE, AT_ONCE]),
        ("", []),
        *integration(
            ("--offload sequential --cfg-batching sequential --guidance 3", [IN_PLACE]),
            ("--cfg-batching batched --guidance 3.3", [AT_ONCE]),
        ),
    ],
)
def test_what_brings_nothing_where_it_runs_is_a_note(words, notes):
    code, _, err = pavdm("generate", "a red ball", "--plan", "--device", "cpu", *words.split())
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("note: --")] == notes


@pytest.mark.parametrize("command", ["generate", "extend"])
def test_every_option_of_open_sora_alone_is_ignored_by_pocket(command):
    of_opensora = panel("Models: opensora", command).keys() | panel("Models: opensora, skyreels, wan", command).keys()
    assert of_opensora == IDLE.keys() - {"--aspect"}
    assert panel("Models: opensora, pocket", command).keys() == {"--fp32-timesteps"}
    assert "--shift" in panel("Models: skyreels, wan", command)
    assert all(isinstance(option, IgnoredOption) and option.reason for option in IDLE.values())


PANELS = (train_options.POCKET_PANEL, train_options.FINETUNE_PANEL)
SWITCHES = {option: (option, *(() if value.is_flag else ("1",))) for name in PANELS
            for option, value in panel(name, "train", "denoiser").items() if option != "--data"}  # fmt: skip


@pytest.mark.parametrize("option", SWITCHES)
def test_an_option_for_the_training_of_the_other_model_is_rejected(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for train in ("_train_pocket", "_finetune"):
        monkeypatch.setattr(f"pavdm_cli.commands.train.{train}", lambda *args: None)
    for_pocket = option in panel(train_options.POCKET_PANEL, "train", "denoiser")
    line = ("--init", "opensora-v1.2", "--data", ".") if for_pocket else ()
    code, out, err = pavdm("train", "denoiser", *line, *SWITCHES[option])
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {option} only applies to: {'Pocket' if for_pocket else 'Open-Sora or Wan'}, on ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["genrate"], "`pavdm --help` lists the commands"),
        (["models", "shw"], "`pavdm models --help` lists the commands"),
        (["models", "--shw"], "`pavdm models --help` lists the options"),
        (["generate", "x", "--secnds", "3"], "did you mean --seconds? `pavdm generate --help` lists the options"),
        (
            ["generate", "x", "--prompt", "x"],
            "PROMPT is an argument: pavdm generate PROMPT. `pavdm generate --help` lists the options",
        ),
        (["batch", "x.csv", "-d", "x", "--stream-format", "mp4"], "`pavdm batch --help` lists the options"),
    ],
)
def test_the_hint_says_what_the_help_lists(words: list[str], hint: str) -> None:
    assert pavdm(*words).err.splitlines()[-1] == f"hint: {hint}"


FOREIGN = {
    "--duration": "--seconds",
    "--length": "--seconds",
    "--num-frames": "--frames",
    "--num_frames": "--frames",
    "--width": "--size",
    "--height": "--size",
    "--num-inference-steps": "--steps",
    "--cfg": "--guidance",
    "--guidance-scale": "--guidance",
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_names_of_other_programs_are_understood_everywhere(foreign: str, tmp_path: Path, monkeypatch) -> None:
    own, key = FOREIGN[foreign], foreign.removeprefix("--")
    assert f"hint: did you mean {own}?" in pavdm("generate", "x", foreign, "3").err
    (tmp_path / "pavdm.toml").write_text(f"{key} = 3")
    assert f"did you mean {own[2:]}?" in pavdm("generate", "x", folder=tmp_path).err
    (tmp_path / "pavdm.toml").unlink()
    (tmp_path / "jobs.csv").write_text(f"prompt,{key}\nx,3\n")
    assert f"did you mean {own[2:]}?" in pavdm("batch", tmp_path / "jobs.csv", "-d", tmp_path / "v").err
    with pytest.raises(UsageError) as error:
        pavdm_cli.generate("x", **{key.replace("-", "_"): 3})
    assert error.value.hint == f"did you mean {own[2:]}?"
    variable = f"PAVDM_{key.upper().replace('-', '_')}"
    monkeypatch.setenv(variable, "3")
    assert f"{variable} does not set any option of pavdm: did you mean PAVDM_{own[2:].upper()}?" in pavdm("doctor").err


def test_every_option_that_a_foreign_name_stands_for_exists() -> None:
    flags = {name.removeprefix("--") for command in typer.main.get_command(app).commands.values()
             for option in command.params for name in option.opts}  # fmt: skip
    assert not FOREIGN_NAMES.keys() - flags
    assert not [name for name in OWN_NAMES if name in flags - {"output-dir"}]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "v.mp4", "--export", "vbench-long", "x", "--flow"), "--export cannot be combined with --flow"),
        (("info", "v.mp4", "--config", "--json"), "--config and --json cannot be combined"),
    ],
)
def test_an_option_without_effect_is_rejected(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    make(tmp_path / "v.mp4", grays(9))
    code, _, err = pavdm(*words, folder=tmp_path)
    assert (code, says in err) == (2, True), err


def test_the_help_tells_of_standard_output_only_where_it_works() -> None:
    assert "standard output; default" in " ".join(pavdm("generate", "--help").out.replace("│", "").split())
    for verb in ("extend", "redo", "batch"):
        assert "-o -" not in pavdm(verb, "--help").out
        assert "stdout" not in pavdm(verb, "--help").out
