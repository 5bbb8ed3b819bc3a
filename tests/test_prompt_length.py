"""Prompts beyond Open-Sora's limit: truncated like in its released code, with one note."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from support.requests import make_request
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import t5
from pavdm_cli.models.opensora.text_encoder import MAX_TOKENS, load_tokenizer, truncation_note

pytestmark = pytest.mark.usefixtures("own_cache")

NUMBERED = "a red balloon drifts over green hills at sunset"


def of_length(folder: Path, tokens: int) -> str:
    """A prompt of so many tokens, its end not counted."""
    text = " ".join([NUMBERED, *["a"] * tokens])
    tokenizer = SentencePieceProcessor(model_file=str(folder / "text_encoder" / "spiece.model"))
    while len(tokenizer.encode(text)) > tokens:
        text = text[:-2]
    assert len(tokenizer.encode(text)) == tokens
    return text


def token_ids(folder: Path, text: str) -> list[int]:
    return t5.token_ids(load_tokenizer(folder), text, MAX_TOKENS)


def test_a_prompt_that_just_fits_is_read_whole_and_nothing_is_said(folder):
    text = of_length(folder, MAX_TOKENS - 1)
    assert len(token_ids(folder / "text_encoder", text)) == MAX_TOKENS
    assert truncation_note(folder / "text_encoder", text) == []


@pytest.mark.parametrize("over", [1, 2, 40, 700])
def test_a_longer_one_is_cut_at_300_tokens_and_what_is_lost_is_counted_and_named(folder, over):
    where = folder / "text_encoder"
    text = of_length(folder, MAX_TOKENS - 1 + over)
    tokenizer = SentencePieceProcessor(model_file=str(where / "spiece.model"))
    ids = token_ids(where, text)
    assert (len(ids), ids[-1]) == (MAX_TOKENS, t5.EOS)
    assert ids[:-1] == tokenizer.encode(text)[: MAX_TOKENS - 1]
    (note,) = truncation_note(where, text)
    assert f"has {MAX_TOKENS + over} tokens and the model reads {MAX_TOKENS}" in note
    read, lost = tokenizer.decode(ids[:-1]).split(), tokenizer.decode(tokenizer.encode(text)[MAX_TOKENS - 1 :]).split()
    assert f'cut after "... {" ".join(read[-4:])}"' in note
    assert f"left out, {len(lost)} {'word' if len(lost) == 1 else 'words'}: " in note
    named = re.findall(r'"([^"]*)"', note)[1]
    assert named == " ".join(lost[:24]) + (" ..." if len(lost) > 24 else "")
    assert "\n" not in note


def test_the_transformer_is_given_300_vectors_and_the_score_at_the_end_is_lost_with_the_rest(folder):
    text = " ".join([NUMBERED] * 60)
    sampling = {"model": str(folder), "steps": 6, "device": "cpu"}
    job = resolve(make_request(text, frames=17, size=(64, 72), **sampling))
    model = pipeline.open_model(job)
    prompt, null = model.embed(job.formatted_prompt.text, cfg=True)
    assert len(prompt.embeds) == len(null.embeds) == MAX_TOKENS
    assert prompt.mask is None
    notes = [note for note in job.video_model.truncation_notes(job.formatted_prompt.text) if "tokens" in note]
    assert len(notes) == 1


def test_the_command_line_says_it_in_one_line_and_makes_the_video(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--model", str(folder), "--size", "72x64", "--steps", "1", "--window", "5", "--frames", "1")
    result = CliRunner().invoke(app, ["generate", " ".join([NUMBERED] * 60), *words, "-o", "v.mp4"])
    assert result.exit_code == 0, result.output
    assert len([line for line in result.stderr.splitlines() if "the model reads 300" in line]) == 1
    assert (tmp_path / "v.mp4").exists()


def test_a_folder_without_a_tokenizer_says_nothing_here(tmp_path):
    assert truncation_note(tmp_path, NUMBERED * 99) == []
