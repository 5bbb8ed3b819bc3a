"""Configuration files with arbitrary content are rejected at once, with one line and exit code 2."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from support.command import pavdm

from pavdm_cli.commands.config_file import parse_yaml, read_config
from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.untrusted import InvalidError

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
HOSTILE = {
    "aliases.yaml": BOMB,
    "anchor.yaml": "steps: &a 3",
    "merge.yaml": "<<: {steps: 3}",
    "tag.yaml": "steps: !!python/object/apply:os.system ['touch hacked']",
    "local.yaml": "steps: !x 3",
    "twice.yaml": "steps: 3\nsteps: 4",
    "deep.yaml": "steps: " + "[" * 30_000,
    "deepmap.yaml": "{a: " * 10_000,
    "dashes.yaml": "- " * 30_000,
    "keys.yaml": "".join(f"a{number}: 1\n" for number in range(3000)),
    "listkey.yaml": "[1, 2]: 3",
    "mapkey.yaml": "{a: 1}: 3",
    "scalar.yaml": "steps",
    "empty.yaml": "",
    "two.yaml": "steps: 3\n---\nsteps: 4",
    "digits.yaml": "steps: " + "9" * 5000,
    "number.yaml": "1: 3",
    "control.yaml": "steps: \x01",
    "tab.yaml": "\tsteps: 3",
    "deep.toml": "steps = " + "[" * 30_000,
    "dots.toml": ".".join("a" * 15_000) + " = 1",
    "tables.toml": "[" + ".".join("a" * 15_000) + "]\n",
    "digits.toml": "steps = " + "9" * 5000,
    "twice.toml": "steps = 1\nsteps = 2",
    "broken.toml": "steps = '''",
    "prompt.toml": "prompt = '''" + "x" * 60_000 + "'''\nstepz = 1",
    "big.toml": "# " + "x" * 70_000,
    "nul.toml": 'prompt = "a\\u0000b"',
    "escape.toml": 'stepz\x1b = "x"',
    "escape2.toml": '"\\u001b[2J" = "x"',
    "surrogate.toml": 'prompt = "\\ud800"',
    "inline.toml": "a = {" + "b = {" * 5000,
    "section.toml": "generate = 3",
    "nested.toml": "[generate.x]\ny = 1",
    "group.toml": "[train]\nsteps = 3",
    "file.ini": "steps = 3",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_rejected_in_one_line_at_once(name: str) -> None:
    Path(name).write_text(HOSTILE[name], encoding="utf-8", errors="surrogatepass")
    start = time.monotonic()
    code, out, err = pavdm("generate", "a red ball", "--config", name)
    assert time.monotonic() - start < 10
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) <= 2
    assert name in lines[0]
    assert "Traceback" not in err
    assert err.isprintable() or err.replace("\n", "").isprintable()
    assert os.listdir() == [name]


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names elsewhere")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "binary", "utf-16"])
def test_anything_but_a_text_file_is_rejected(kind: str) -> None:
    path = Path("x.toml")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(random.Random(1).randbytes(500) if kind == "binary" else "steps = 3".encode("utf-16"))
    code, _, err = pavdm("generate", "a red ball", "--config", "x.toml")
    assert code == 2
    assert err.startswith(("error: x.toml: ", "error: cannot read x.toml: "))
    path.rename("pavdm.toml")
    code, _, err = pavdm("generate", "a red ball")
    assert code == 2
    assert err.startswith(("error: pavdm.toml: ", "error: cannot read pavdm.toml: "))


def test_help_is_printed_whatever_is_in_the_files() -> None:
    Path("pavdm.toml").write_text("[[[")
    assert "Make a video" in pavdm("generate", "--help").out
    assert pavdm("generate", "a red ball").code == 2


def test_yaml_is_read_as_its_version_1_2() -> None:
    text = "vae-tiling: on\naspect: 9:16\nsteps: 30\nguidance: 1.5\ncompile: true\nprompt: 'no'\nlora: [a, b]\n"
    assert parse_yaml(text) == {
        "vae-tiling": "on",
        "aspect": "9:16",
        "steps": 30,
        "guidance": 1.5,
        "compile": True,
        "prompt": "no",
        "lora": ["a", "b"],
    }


def test_without_pyyaml_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.yaml").write_text("steps: 3")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="reading YAML needs PyYAML"):
        read_config(Path("a.yaml"))


def test_random_bytes_in_yaml_raise_one_kind_of_error() -> None:
    draw = random.Random(0)
    parts = [*"[]{}'\"\n 1%@#", "a: ", "- ", ": ", "? ", "| ", "> ", "&a ", "*a ", "!!int "]
    for _ in range(150):
        try:
            parse_yaml("".join(draw.choice(parts) for _ in range(draw.randrange(1, 40))))
        except InvalidError:
            continue
