"""Rows store the settings in use, so that only rows of the same configuration are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.requests import make_request
from test_bench_released import SMALL

from pavdm_cli.bench import throughput
from pavdm_cli.bench.architectures import find_architecture
from pavdm_cli.bench.compare import differences
from pavdm_cli.bench.throughput import open_architecture, row
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models.runner import ModelRunner

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that need not be measured here."""
    monkeypatch.setattr(throughput, "ceilings", lambda device, dtype: {"matrix_tflops": 1.0, "dtype": dtype})


@pytest.fixture
def threads() -> Iterator[None]:
    """As many as before, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def small() -> tuple[GenerationConfig, ModelRunner]:
    """A network of random weights, with the threads that torch has."""
    return open_architecture(make_request("a", seconds=1, model="opensora-v1.2"), SMALL)


def differing(row: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings in which two rows differ."""
    return [where for where, _, _ in differences(row["config"], other["config"])]


def test_rows_of_other_threads_attention_or_weights_are_not_the_same_configuration(threads: None) -> None:
    job, model = small()
    torch.set_num_threads(1)
    first = row("throughput", job, model, {}, {})
    assert differing(first, row("throughput", job, model, {}, {})) == []
    named = replace(model, attention=replace(model.attention, name="flash"))
    assert differing(first, row("throughput", job, named, {}, {})) == ["attention"]
    assert differing(first, row("throughput", job, replace(model, digest="other"), {}, {})) == ["weights"]
    torch.set_num_threads(2)
    assert differing(first, row("throughput", job, model, {}, {})) == ["threads"]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_share_is_of_products_in_the_precision_that_the_model_makes_them_in(
    precision: str, dtype: torch.dtype
) -> None:
    job, model = open_architecture(make_request("a", frames=2, precision=precision), find_architecture("pocket"))
    assert model.transformer.x_embedder.proj.weight.dtype == torch.float32
    assert row("throughput", job, model, {}, {})["ceilings"]["dtype"] == dtype
