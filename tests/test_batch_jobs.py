"""Files of jobs: parsing, error messages, and the names of the videos."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from support.command import pavdm
from support.options import ROOT, as_text, parsed, sample

from pavdm_cli.batch.jobs_file import BadLine, Row, read_rows
from pavdm_cli.commands import batch_jobs, config
from pavdm_cli.commands.option_values import command_options
from pavdm_cli.errors import UsageError

GENERATE = command_options(ROOT.commands["generate"])
OF_A_JOB = [key for key in GENERATE if key not in batch_jobs.NOT_IN_JOBS]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "user_file", lambda: Path("user.toml"))


def jobs_of(text: str, *words: str, name: str = "jobs.jsonl") -> list[Any]:
    Path(name).write_text(text)
    return batch_jobs.read_jobs(parsed("batch", name, "-d", "out", *words), Path(name))


def values_of(row: Row) -> dict[str, Any]:
    return dict(batch_jobs._values(row, batch_jobs._defaults(parsed("batch", "jobs.txt", "-d", "out"))))


@pytest.mark.parametrize("key", OF_A_JOB)
def test_every_option_of_generate_can_be_in_a_job(key: str) -> None:
    value = sample(GENERATE[key])
    (converted,) = values_of(Row(1, {key: value}, is_text=False)).values()
    assert converted == (Path(value) if GENERATE[key].type is Path else value)
    text = as_text(GENERATE[key], value) if isinstance(value, list) else str(value)
    assert values_of(Row(1, {key.replace("_", "-"): text}, is_text=True)) == {GENERATE[key].name: converted}


def test_every_option_of_generate_is_an_option_of_batch() -> None:
    assert GENERATE.keys() - command_options(ROOT.commands["batch"]).keys() == {"prompt", "output", "stream_format"}


def test_a_text_file_has_a_prompt_per_line() -> None:
    jobs = jobs_of("\ufeff# seeds\r\na  red ball\r\n\r\n  a blue kite \r\n", "-n", "2", "--seed", "7", name="jobs.txt")
    assert [(job.name, job.location, job.request.prompt, job.request.seed) for job in jobs] == [
        ("0001-a-red-ball-7.mp4", "jobs.txt:2", "a red ball", 7),
        ("0001-a-red-ball-8.mp4", "jobs.txt:2", "a red ball", 8),
        ("0002-a-blue-kite-7.mp4", "jobs.txt:4", "a blue kite", 7),
        ("0002-a-blue-kite-8.mp4", "jobs.txt:4", "a blue kite", 8),
    ]


def test_a_table_has_the_types_of_its_options() -> None:
    text = (
        'prompt,seed,frames,compile,guidance,output\n"a red ball,\non hills",3,6,,1.5,x.mkv\n,,,,,\na kite,,,TRUE,,\n'
    )
    first, second = jobs_of(text, "--seconds", "1", name="jobs.csv")
    assert (first.name, first.request.seed, first.request.frame_count) == ("x.mkv", 3, 6)
    assert first.request.prompt == "a red ball, on hills"
    assert (second.location, second.request.execution.compile, second.request.frame_count) == ("jobs.csv:5", True, 8)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_table_may_be_separated_as_spreadsheets_do(delimiter: str) -> None:
    text = '\ufeff"seed",prompt,frames\r\n3,"a red ball, on hills",6\r\n,a kite,\r\n'.replace(",", delimiter)
    first, second = jobs_of(text.replace(f"ball{delimiter} on", "ball, on"), name="jobs.csv")
    assert (first.request.prompt, first.request.seed, first.request.frames) == ("a red ball, on hills", 3, 6)
    assert (second.request.prompt, second.request.frames) == ("a kite", None)


def test_options_of_a_job_stand_above_those_of_the_command_and_of_files() -> None:
    Path("pavdm.toml").write_text("steps = 6\ncrf = 30\naspect = '1:1'\n[batch]\nseconds = 2\n")
    lines = ('{"prompt": "a ball", "frames": 5, "crf": 31}', '{"prompt": "a ball", "seed": null}')
    first, second = (job.request for job in jobs_of("\n".join(lines), "--crf", "32"))
    assert [(r.steps, r.output.crf, r.frame_count) for r in (first, second)] == [(6, 31, 5), (6, 32, 16)]


def test_the_same_file_gives_the_same_names_and_seeds() -> None:
    text = "\n".join(json.dumps({"prompt": "a red ball", "count": 3}) for _ in range(4))
    first, second = ([(job.name, job.request) for job in jobs_of(text)] for _ in range(2))
    assert first == second
    assert len({name for name, _ in first}) == 12


WRONG = {
    '{"prompt": "a ball", "frames": "6"}': "frames is '6', not an integer",
    '{"prompt": "a ball", "stepz": 6}': "'stepz' is not a valid option; did you mean steps?",
    '{"prompt": "a ball", "steps": 5}': "steps must be a multiple",
    '{"prompt": "a ball", "steps": NaN}': "it has NaN, which is not JSON",
    '{"prompt": "a ball", "steps": 1e999}': "it has a number out of range",
    '{"prompt": "a ball", "seed": -1}': "--seed must be 0 to 2^63 - 1, got -1",
    '{"prompt": "a ball", "seed": 9999999999999999999999}': "--seed must be 0 to 2^63",
    '{"prompt": "a ball", "count": 0}': "count is 0, not an integer from 1 to 10000",
    '{"prompt": "a ball", "plan": true}': "'plan' is an option of the command, not of individual jobs",
    '{"prompt": "a ball", "output": "../x.mp4"}': "output is '../x.mp4', not the name of a video in the folder",
    '{"prompt": "a ball", "output": "/x.mp4"}': "output is '/x.mp4', not the name of a video",
    '{"prompt": "a ball", "output": ".queue"}': "output is '.queue', not the name of a video",
    '{"prompt": "a ball", "output": "x.avi"}': "output is 'x.avi', not the name of a video",
    '{"prompt": "a ball", "seconds": 1, "frames": 2}': "--seconds and --frames cannot be combined",
    '{"prompt": "a ball", "camera-motion": "pan left"}': "--camera-motion has no effect with pocket",
    '{"prompt": "a ball", "image": "none.png"}': "none.png",
    '{"prompt": "a ball", "device": "gpu"}': "--device must be one of",
    '{"prompt": "a ball", "model": "poket"}': "no model is called 'poket'",
    '{"prompt": "a\\u0000ball"}': "prompt is 'a\\x00ball', not a string",
    '{"prompt": "zebra"}': "pocket knows none of the words in 'zebra'",
    '{"prompt": " "}': "the prompt is missing",
    '{"seed": 3}': "the prompt is missing",
    '{"prompt": "a ball", "seconds": "forever"}': "batch jobs cannot be endless",
    '{"prompt": "a ball", "seconds": "long"}': "seconds is 'long', not",
    '{"prompt": "a ball", "at": ["20s"]}': "--at",
    '{"prompt": "a", "prompt": "b"}': "it has an object with the same name twice",
    '["a ball"]': "it is not an object of options",
    '"a ball"': "it is not an object of options",
    "[" * 5000: "it is nested too deeply",
    '{"prompt": {"a": [1]}}': "prompt is an object of 1, not a string",
    '{"prompt": "' + "x" * 200_000 + '"}': "prompt is 'xxxx",
    '{"prompt": "\\ud800"}': "it has text that is not Unicode",
    "{": "it is not JSON",
}


def test_every_wrong_line_is_one_line_with_its_place_and_nothing_is_made() -> None:
    Path("jobs.jsonl").write_text("\n".join(['{"prompt": "a ball"}', *WRONG]))
    code, out, err = pavdm("batch", "jobs.jsonl", "-d", "out")
    assert (code, out, Path("out").exists()) == (2, "", False)
    *lines, error, hint = err.splitlines()
    assert len(lines) == len(WRONG)
    for number, (line, reason) in enumerate(zip(lines, WRONG.values(), strict=True), 2):
        assert line.startswith(f"jobs.jsonl:{number}: {reason}"), line
    assert error == f"error: jobs.jsonl: {len(WRONG)} lines are invalid, nothing was rendered"
    assert hint.startswith("hint: ")


FILES = {
    "jobs.csv": ("seed\n3\n", "jobs.csv:1: the first row names the options, and has no column `prompt`"),
    "twice.csv": ("prompt,prompt\na,b\n", "twice.csv:1: the column 'prompt' appears twice"),
    "cells.csv": ("prompt\na ball\na, ball\n", "cells.csv:3: it has 2 cells, and the first row has 1"),
    "quote.csv": ('prompt\n"a ball\n', "quote.csv:2: it is not CSV"),
    "type.csv": ("prompt,steps\na ball,six\n", "type.csv:2: steps is 'six', not an integer"),
    "nul.csv": ("prompt\na\0ball\n", "nul.csv:2: "),
    "nul.txt": ("a ball\na\0ball\n", "nul.txt:2: prompt is 'a\\x00ball', not a string"),
    "empty.txt": ("# none\n\n", "error: empty.txt has no jobs"),
    "jobs.yaml": ("a: 1", "error: unsupported file type: jobs.yaml"),
    "same.jsonl": ('{"prompt": "a ball", "output": "a.mp4"}\n' * 2, "same.jsonl:2: it writes to a.mp4, as"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_wrong_as_a_whole_is_rejected(name: str) -> None:
    text, line = FILES[name]
    Path(name).write_text(text)
    code, out, err = pavdm("batch", name, "-d", "out")
    assert (code, out, Path("out").exists()) == (2, "", False)
    assert err.startswith(line), err


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names elsewhere")
def test_what_is_no_text_file_is_no_file_of_jobs() -> None:
    os.mkfifo("pipe.txt")
    Path("folder.txt").mkdir()
    Path("binary.txt").write_bytes(random.Random(1).randbytes(100))
    for name in ("pipe.txt", "folder.txt", "binary.txt", "missing.txt"):
        code, _, err = pavdm("batch", name, "-d", "out")
        assert (code, err.startswith(f"error: cannot read the jobs in {name}: ")) == (3, True)


def test_a_mistake_in_the_command_itself_is_said_once() -> None:
    Path("jobs.txt").write_text("a ball\na kite\n")
    code, _, err = pavdm("batch", "jobs.txt", "-d", "out", "--crf", "99")
    assert (code, err.count("--crf must be 0 to 51")) == (2, 1)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_random_files_never_raise_anything_else(suffix: str) -> None:
    draw, path = random.Random(2), Path(f"x{suffix}")
    parts = [*'{}[]",:\n\r\t\0 #', "prompt", "a ball", "\r\n", "\u2028", "null", "1e99", "\\u0000", "\ufeff"]
    for _ in range(100):
        text = "prompt\n" * (suffix == ".csv") + "".join(draw.choice(parts) for _ in range(draw.randrange(30)))
        path.write_text(text, newline="")
        try:
            rows, bad = read_rows(path)
        except UsageError:
            continue
        assert all(isinstance(row, Row) for row in rows)
        assert all(isinstance(line, BadLine) for line in bad)


def test_the_name_of_a_growing_video_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a ball", "output": "boat.partial.mp4"}')
    result = pavdm("batch", tmp_path / "jobs.jsonl", "-d", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    assert "'boat.partial.mp4', not the name of a video" in result.err
