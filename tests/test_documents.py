"""The documents: short enough to read, links that resolve, command lines that parse, figures that are stored."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pavdm_cli.app import CommandLineError, app

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import performance
import quality_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PERFORMANCE = ROOT / "docs" / "performance.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
FOREIGN_OPTIONS = {  # of pip, uv, pytest, ruff, curl and our own scripts
    *("--extra-index-url", "--no-build-isolation", "--extra", "--python-version", "--dist", "--check"),
    *("--integration", "--record", "--measure", "--help", "--minutes", "--commit", "--before", "--tiny"),
    *("--no-index", "--no-deps", "--target", "--nproc-per-node", "--fail-with-body"),
}
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(document: Path) -> set[str]:
    """The anchors that a renderer makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def unresolved(document: Path) -> list[str]:
    """Relative links to a file or a heading that does not exist."""
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    missing = []
    for link in links:
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    return missing


def command_lines(text: str) -> Iterator[list[str]]:
    """The words after `pavdm` of every command in the shell blocks of a document."""
    for block in SHELL_BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for words in pipeline(line):
                if words[:1] == ["pavdm"]:
                    yield words[1:]
                elif "pavdm_cli" in words:
                    yield words[words.index("pavdm_cli") + 1 :]


def pipeline(line: str) -> list[list[str]]:
    """The simple commands of a shell line, each as its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in itertools.takewhile(lambda word: word != ">", lexer):  # a file to write to ends the line
        if set(word) <= set("&|;"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def parse(words: list[str]) -> None:
    """Parse a command line without running it. Raises: CommandLineError."""
    command, context = typer.main.get_command(app), None
    while True:
        context = command.make_context(command.name or "pavdm", list(words), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*context._protected_args, *context.args]  # the subcommand's name, and what follows it
        _, command, words = command.resolve_command(context, rest)


def test_the_readme_and_the_contributing_guide_are_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_relative_link_resolves(document: Path) -> None:
    assert unresolved(document) == []


def test_a_broken_link_or_anchor_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One heading: `x`\n[1](a.md#one-heading-x) [2](#none) [3](b.md) [4](https://a.b/c)")
    assert unresolved(document) == ["#none", "b.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_line_parses(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pavdm_cli.commands.config.read_config", lambda path: {"prompt": "of an example's file"})
    for words in command_lines(document.read_text(encoding="utf-8")):
        parse(words)


def test_the_documents_have_command_lines() -> None:
    lines = [words for document in DOCUMENTS for words in command_lines(document.read_text(encoding="utf-8"))]
    assert len(lines) >= 30
    assert {"generate", "extend", "info", "models", "train", "bench"} <= {words[0] for words in lines}


@pytest.mark.parametrize("line", ["generate", "generate x --no-such-option", "extend a.mp4 --audio loud", "fly"])
def test_a_command_line_that_cannot_work_is_found(line: str) -> None:
    with pytest.raises(CommandLineError):
        parse(line.split())


def test_commands_are_found_behind_pipes_and_comments() -> None:
    text = "```sh\npip install . && pavdm doctor -q  # a comment\necho x | pavdm generate - | cat\n```\n`pavdm fly`"
    assert list(command_lines(text)) == [["doctor", "-q"], ["generate", "-"]]


def options(command: Any) -> set[str]:
    """All options of a command and those below it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_option_in_inline_code_exists(document: Path) -> None:
    known = options(typer.main.get_command(app)) | FOREIGN_OPTIONS
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    code = [span for span in re.findall(r"`([^`]+)`", text) if document.name != "CHANGELOG.md"]
    assert [span for span in code if not set(re.findall(r"(?<!\S)--[a-z][\w-]*", span)) <= known] == []


def last(part: str) -> dict[str, Any]:
    """The values of the last stored row of a part."""
    return {key: bar["value"] for key, bar in quality_table.load_bars(part).items()}


def test_the_quality_tables_are_the_last_stored_rows() -> None:
    text = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    for name, lines in (("quality", quality_table.quality_table()), ("partial", quality_table.partial_table())):
        assert f"<!-- {name}: begin -->\n{lines}\n<!-- {name}: end -->\n" in text


def test_the_figures_of_the_readme_are_stored() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    videos, minute = last("videos"), last("minute")
    memory = json.loads((RESULTS / "memory.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    released = json.loads((RESULTS / "released.jsonl").read_text(encoding="utf-8").splitlines()[-1])["summary"]
    exact, reuse = ("-".join(f"{value:.2f}" for value in released[key]) for key in ("step_exact", "step_reuse"))
    followed = [quality_table.percent(videos[f"{attribute} accuracy"]) for attribute in ("object", "color", "motion")]
    late = [minute[f"{figure}, last seconds minus first"] * 100 for figure in ("accuracy", "one object")]
    assert f"| {exact}x exact, {reuse}x with" in text
    assert f"of 10 s and of 600 s | {memory['peak_mb'][0]} MB and {memory['peak_mb'][1]} MB |" in text
    assert f"| {', '.join(followed)} |" in text
    assert f"| {late[0]:.0f} and {late[1]:.0f} percentage points |" in text
    assert f"| {videos['boundary ratio, of real']:.2f} | [pocket]" in text


def test_the_speed_of_pocket_is_stored() -> None:
    rows = performance.quiet_rows("throughput.jsonl", "throughput", "pocket", random_weights=False, precision="fp32")
    last_rows = [row for row in rows if performance.is_comparable(row, rows[-1])]
    assert {row["config"]["threads"] for row in last_rows} == {2}
    summaries = [row["summary"] for row in last_rows]
    rates = " and ".join(f"{summary['end_to_end_fps']:.1f}" for summary in summaries)
    factors = " and ".join(f"{summary['real_time_factor']:.1f}" for summary in summaries)
    readme, text = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", PERFORMANCE))
    assert f"| {rates} fps, {factors}x real time | [throughput]" in readme
    assert f"{rates} frames per second end to end, {factors}x real time" in text
    latency = performance.quiet_rows("latency.jsonl", "latency", "pocket")[-1]["summary"]
    cold, warm = latency["first_frame_cold_p50_s"], latency["first_frame_warm_p50_s"]
    assert (
        f"takes {cold:.1f} s in a\nnew process, and {warm:.2f} s once torch is imported, both with loading the weights"
        in text
    )


def test_the_comparison_with_diffusers_is_stored() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (RESULTS / "wan-cpu.jsonl").read_text(encoding="utf-8").splitlines()]
    summaries = {(row["case"], row["dtype"]): row["summary"] for row in rows}
    single, half = (summaries["block", dtype] for dtype in ("float32", "bfloat16"))
    assert f"is {summaries['video', 'float32']['ratio']:.2f}x as fast" in text
    assert f"is {single['ratio']:.2f}x\nas fast in float32 and {half['ratio']:.2f}x in bfloat16" in text
    shares = [f"{100 * summary['diffusers_matmul_share']:.0f} %" for summary in (single, half)]
    assert f"spends {shares[0]} of its time ({shares[1]} in\nbfloat16)" in text
    limits = [1 / summary["diffusers_matmul_share"] for summary in (single, half)]
    assert f"would give {limits[0]:.2f}x ({limits[1]:.2f}x)" in text


def test_the_animation_is_small() -> None:
    assert (ROOT / "docs" / "images" / "pocket.gif").stat().st_size < 3_000_000


SOURCES = {
    name(path) for folder in ("pavdm_cli", "kernels", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_module_in_inline_code_exists(document: Path) -> None:
    modules = re.findall(r"`((?:\w+/)*[a-z_0-9]+\.py)`", document.read_text(encoding="utf-8"))
    assert [module for module in modules if not any(f"/{source}".endswith(f"/{module}") for source in SOURCES)] == []
