"""Misspelled words of a prompt, and ambiguous words."""

from __future__ import annotations

import pytest
from test_pocket_prompt import notes

from pavdm_cli.errors import UsageError
from pavdm_cli.pocket_world.prompt import format_prompt


def test_a_misspelled_word_is_corrected_where_nothing_else_of_its_kind_is_named() -> None:
    text = "a red baloon over the hils"
    assert 'pocket reads "baloon" as "balloon"\npocket reads "hils" as "hills"' in notes(text)
    assert "balloon" in format_prompt(text, 0).text
    assert 'as "balloon"' not in notes("a kite and a baloon")
    assert "kite" in format_prompt("a kite and a baloon", 0).text


def test_a_named_object_sails_whatever_it_is() -> None:
    assert all("kite" in format_prompt("a kite sailing at dusk", seed).text for seed in range(8))
    assert all("boat" in format_prompt("sailing at dusk", seed).text for seed in range(8))


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u2003"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        format_prompt(text, 1)
