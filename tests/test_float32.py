"""The VAE computes float32 without TF32 on a GPU, and leaves torch's global setting as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch
from support.tiny import tiny_vae

from pavdm_cli.models.float32 import exact_convolutions

CONV = torch.backends.cudnn.conv


@pytest.fixture(params=["tf32", "ieee"])
def before(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the program asked torch for; TF32 is torch's own choice."""
    assert CONV.fp32_precision == "tf32"
    CONV.fp32_precision = request.param
    yield request.param
    CONV.fp32_precision = "tf32"


@torch.no_grad()
def test_the_vae_convolves_exactly_and_leaves_torch_as_it_was(before: str) -> None:
    vae, dtypes = tiny_vae(), list[tuple[torch.dtype, str]]()
    for layer in vae.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, out: dtypes.append((out.dtype, CONV.fp32_precision)))
    latents = vae.encode(torch.zeros(1, 2, 3, 16, 24))
    assert CONV.fp32_precision == before
    encoding = len(dtypes)
    vae.decode(latents)
    assert CONV.fp32_precision == before
    assert len(dtypes) > encoding > 0
    assert set(dtypes) == {(torch.float32, "ieee")}


def test_a_block_that_ends_before_another_takes_nothing_from_it(before: str) -> None:
    """As in two threads, of which one encodes while the other decodes."""
    first, second = ExitStack(), ExitStack()
    first.enter_context(exact_convolutions())
    second.enter_context(exact_convolutions())
    first.close()
    assert CONV.fp32_precision == "ieee"
    second.close()
    assert CONV.fp32_precision == before


def test_an_error_ends_a_block_too_and_the_older_switch_can_be_read_again(before: str) -> None:
    with pytest.raises(ZeroDivisionError), exact_convolutions():
        raise ZeroDivisionError
    assert CONV.fp32_precision == before
    if before == "tf32":
        assert torch.backends.cudnn.allow_tf32
