"""Signals: the first is noted, the second stops at once, and what was saved is reported."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clips import grays, make
from support.command import pavdm

from pavdm_cli.generation import write, write_extension
from pavdm_cli.generation.decode import RenderedChunk, RenderState
from pavdm_cli.runtime import signals as stop_module
from pavdm_cli.runtime.signals import stop_requested
from pavdm_cli.sampling.loop import SamplerState
from pavdm_cli.video import ExtensionWriter, VideoWriter

ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of this kind are POSIX")
QUICK = ("a red ball", "--seed", "1", "--threads", "1", "--steps", "6", "--frames", "400", "-o")


@contextmanager
def handled(number: int, handler: Callable[..., object] | signal.Handlers) -> Iterator[None]:
    """A signal's handler for a while, whatever started the tests set it to."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@ON_POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_is_noted_and_the_second_stops(name: str) -> None:
    number = getattr(signal, name)

    def unheeded(*_: object) -> None: ...

    with handled(number, unheeded):
        with stop_requested() as stopped:
            assert not stopped()
            os.kill(os.getpid(), number)
            assert stopped()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is unheeded


@ON_POSIX
def test_only_work_is_interrupted_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(stop_module, "exit_interrupted", lambda code: ended.append(code))
    with handled(signal.SIGINT, signal.SIG_DFL), stop_requested(interruptible=False) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        with stop.interruptible(), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == []
        monkeypatch.setattr(stop_module, "PATIENCE", -1.0)
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130]


@ON_POSIX
def test_a_second_video_is_not_ended_at_once_by_its_first_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_module, "PATIENCE", -1.0)
    with handled(signal.SIGINT, signal.SIG_DFL), stop_requested(interruptible=False) as stop:
        with stop.interruptible():
            pass
        with stop.interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert stop()


@ON_POSIX
def test_a_terminal_that_nohup_lets_close_stops_nothing() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN), stop_requested() as stopped:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stopped()


def seventeen_frames() -> RenderedChunk:
    nothing = torch.zeros(1, 0, 1, 1, 1)
    state = RenderState(SamplerState(1, range(1), nothing, nothing, nothing), None, None, num_latents=0, frames=17)
    return RenderedChunk(np.zeros((17, 64, 96, 3), np.uint8), None, state)


@pytest.mark.parametrize("at", ["in a chunk", "after one", "in an input"])
def test_a_second_interrupt_tells_what_is_kept(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def pressed(*args: object, **options: object):
        yield seventeen_frames()
        raise KeyboardInterrupt

    def written(*args: object):
        raise KeyboardInterrupt
        yield

    for module in (write, write_extension):
        monkeypatch.setattr(module, "render_chunks", pressed)
    result = pavdm("generate", *QUICK, "v.mp4")
    assert (result.code, result.out) == (130, "")
    assert "interrupted: kept v.partial.mp4, 17 frames\nhint: `pavdm resume v.mp4` continues it" in result.err
    if at == "in an input":
        monkeypatch.setattr(write_extension, "write_chunks", written)
    result = pavdm("extend", "v.partial.mp4", "--frames", "400", "--threads", "1", "-o", "more.mp4")
    assert (result.code, result.out) == (130, "")
    if at == "in an input":
        assert "interrupted: no frame was finished, so nothing was saved\nhint: run it again" in result.err
        assert not Path("more.partial.mp4").exists()
        return
    assert "interrupted: kept more.partial.mp4, 34 frames" in result.err
    resume = "34 of 417, interrupted; `pavdm resume more.partial.mp4` continues it"
    assert f"frames            {resume}" in pavdm("info", "more.partial.mp4").out


@ON_POSIX
@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupt_while_the_input_is_copied_keeps_nothing(
    presses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "in.mp4", grays(60, 64, 96))
    monkeypatch.chdir(tmp_path)
    copy = ExtensionWriter.copy_input

    def pressed(self: ExtensionWriter, watch: Callable[..., None]) -> Iterator[int]:
        for count in copy(self, watch):
            if count == 12:
                for _ in range(presses):
                    os.kill(os.getpid(), signal.SIGINT)
            yield count

    monkeypatch.setattr(ExtensionWriter, "copy_input", pressed)
    result = pavdm("extend", "in.mp4", "-p", "a red ball", "--frames", "12", "--threads", "1", "-o", "out.mp4")
    assert (result.code, result.out) == (130, "")
    assert "interrupted: no frame was finished, so nothing was saved\nhint: run it again" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_copy_that_was_killed_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter("a.partial.mp4", 96, 64, 10, {"pavdm": "1", "copied": 173, "source": "in.mp4"}) as writer:
        writer.write(grays(12, 64, 96))
    result = pavdm("extend", "a.partial.mp4", "-p", "a red ball", "--frames", "12")
    assert result.code == 3
    assert "an incomplete copy of in.mp4" in result.err
