"""Work beside the making of the next items: the same items, in order, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from torch import Tensor

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request, Sampling
from pavdm_cli.models.execution import Engine
from pavdm_cli.sampling.prefetch import Ahead, beside

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pavdm-sampler"]


def chunks(count: int) -> Iterator[Tensor]:
    yield from (torch.full((1,), float(number)) for number in range(count))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_every_item_comes_once_and_in_order(count: int) -> None:
    assert list(beside(chunks(count), Tensor.item, CPU)) == list(range(count))
    assert not threads()


def test_the_next_item_is_made_while_one_is_worked_on() -> None:
    begun = [threading.Event() for _ in range(3)]

    def making() -> Iterator[Tensor]:
        for number, event in enumerate(begun):
            event.set()
            yield torch.full((1,), float(number))

    def work(chunk: Tensor) -> bool:
        following = int(chunk) + 1
        return following == len(begun) or begun[following].wait(timeout=60)

    assert list(beside(making(), work, CPU)) == [True] * 3


def test_the_thread_waits_when_nobody_takes_what_it_made() -> None:
    made: list[int] = []

    def making() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with closing(Ahead(making())) as ahead:
        for number in ahead:
            assert len(made) <= number + 3


def test_an_error_comes_in_its_place_and_ends_the_thread() -> None:
    def failing() -> Iterator[Tensor]:
        yield torch.zeros(1)
        raise RuntimeError("no more memory")

    done = beside(failing(), Tensor.item, CPU)
    assert next(done) == 0
    with pytest.raises(RuntimeError, match="no more memory"):
        next(done)
    assert not threads()


def test_an_error_of_the_work_ends_the_thread() -> None:
    def work(chunk: Tensor) -> None:
        raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        list(beside(chunks(5), work, CPU))
    assert not threads()


def test_leaving_early_ends_the_thread() -> None:
    done = beside(chunks(100), Tensor.item, CPU)
    assert next(done) == 0
    done.close()  # type: ignore[attr-defined]
    assert not threads()


def test_a_video_decoded_beside_its_next_steps_is_the_same() -> None:
    def made(how: str) -> list[bytes]:
        sampling = Sampling(steps=4, window=4, seed=3, device="cpu", threads=1, engine=Engine(overlap_decode=how))
        job = pipeline.plan(Request("a red ball over hills", frames=22, sampling=sampling))
        return [chunk.tobytes() for chunk in pipeline.frames(job, pipeline.open_model(job))]

    assert made("on") == made("off")
    assert not threads()
