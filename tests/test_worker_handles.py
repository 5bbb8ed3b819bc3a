"""Rank 0 tells the workers which of its handles are no longer in use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from pavdm_cli.models.parallel import Channel, Message, Workers


class Recorder(Channel):
    """A channel of no process, which notes the messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def broadcast(self, message: Message | None) -> Message:
        assert message
        self.messages.append(message)
        return message


def dropped(channel: Recorder) -> list[int]:
    return [key for message in channel.messages for key in message.dropped]


def test_a_handle_is_reported_once_it_is_dropped() -> None:
    workers = Workers(channel := Recorder())
    first, _ = workers.begin("first")
    workers.begin("second")
    del first
    gc.collect()
    workers.begin("third")
    workers.begin("fourth")
    assert sorted(dropped(channel)) == [0, 1, 2]


def test_no_handle_that_is_dropped_during_a_call_is_lost() -> None:
    workers = Workers(channel := Recorder())
    handles = [workers.begin("call")[0] for _ in range(200)]

    def drop_a_handle(*event: object) -> Callable[..., Any]:
        if handles:
            handles.pop()
        return drop_a_handle

    before = sys.gettrace()
    sys.settrace(drop_a_handle)  # at every line, as the garbage collector may
    try:
        while handles:
            workers.begin("call")
    finally:
        sys.settrace(before)
    workers.begin("last")
    assert sorted({*dropped(channel)} & {*range(200)}) == [*range(200)]
    assert len(dropped(channel)) == len({*dropped(channel)})
