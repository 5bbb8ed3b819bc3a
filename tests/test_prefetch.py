"""Prefetching: the same items in the same order, and no thread left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from support.requests import make_request
from torch import Tensor

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.sampling.prefetch import Prefetcher, map_prefetched

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pavdm-sampler"]


def chunks(count: int) -> Iterator[Tensor]:
    yield from (torch.full((1,), float(number)) for number in range(count))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_every_item_comes_once_and_in_order(count: int) -> None:
    assert list(map_prefetched(chunks(count), Tensor.item, CPU)) == list(range(count))
    assert not threads()


def test_the_next_item_is_produced_during_processing() -> None:
    started = [threading.Event() for _ in range(3)]

    def produce() -> Iterator[Tensor]:
        for number, event in enumerate(started):
            event.set()
            yield torch.full((1,), float(number))

    def process(chunk: Tensor) -> bool:
        following = int(chunk) + 1
        return following == len(started) or started[following].wait(timeout=60)

    assert list(map_prefetched(produce(), process, CPU)) == [True] * 3


def test_the_thread_does_not_run_far_in_advance() -> None:
    produced: list[int] = []

    def produce() -> Iterator[int]:
        for number in range(50):
            produced.append(number)
            yield number

    with closing(Prefetcher(produce())) as prefetcher:
        for number in prefetcher:
            assert len(produced) <= number + 3


def test_an_error_of_the_producer_comes_in_its_place() -> None:
    def failing() -> Iterator[Tensor]:
        yield torch.zeros(1)
        raise RuntimeError("out of memory")

    results = map_prefetched(failing(), Tensor.item, CPU)
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="out of memory"):
        next(results)
    assert not threads()


def test_an_error_while_processing_ends_the_thread() -> None:
    def process(chunk: Tensor) -> None:
        raise ValueError("no frame")

    with pytest.raises(ValueError, match="no frame"):
        list(map_prefetched(chunks(5), process, CPU))
    assert not threads()


def test_leaving_early_ends_the_thread() -> None:
    results = map_prefetched(chunks(100), Tensor.item, CPU)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert not threads()


@pytest.mark.integration
def test_overlapped_decoding_gives_the_same_video() -> None:
    def video(overlap: str) -> list[bytes]:
        sampling = {
            "steps": 4,
            "window": 4,
            "seed": 3,
            "device": "cpu",
            "threads": 1,
            "execution": ExecutionConfig(overlap_decode=overlap),
        }
        job = resolve(make_request("a red ball over hills", frames=22, **sampling))
        return [chunk.tobytes() for chunk in pipeline.generate_frames(job, pipeline.open_model(job))]

    assert video("on") == video("off")
    assert not threads()
