"""Processes that torchrun starts: their ranks, workers of one video, and errors that are printed once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pavdm_cli import ui
from pavdm_cli.commands.batch_processes import environment_number
from pavdm_cli.commands.options import SPEED_PANEL
from pavdm_cli.errors import DeviceError, UsageError
from pavdm_cli.runtime import signals
from pavdm_cli.runtime.interrupt import SCHEDULER

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig

ShardWeights = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="torchrun: each process holds a share of the weights; auto: if a GPU cannot hold all of them.",
        rich_help_panel=SPEED_PANEL,
    ),
]
ONE_VIDEO = ("generate", "extend", "resume", "redo")  # commands in which all processes make one video
FINISHED = "finished"  # key of the store that rank 0 sets
POLL_SECONDS = 0.2
LAST_POLLS = 15
STORE_TIMEOUT = timedelta(seconds=30)


def ranks() -> tuple[int, int, int]:
    """Rank, local rank and world size, as set by torchrun. Raises: UsageError."""
    rank, local_rank = (environment_number(os.environ, name, 0) for name in ("RANK", "LOCAL_RANK"))
    return rank, local_rank, environment_number(os.environ, "WORLD_SIZE", 1)


def is_one_video(arguments: Sequence[str]) -> bool:
    """Whether all processes of this command make one video: rank 0 runs the command, the others run its model."""
    command = next((word for word in arguments[1:] if not word.startswith("-")), "")
    return command in ONE_VIDEO and ranks()[2] > 1


def is_worker(arguments: Sequence[str]) -> bool:
    """Whether this process only runs the model for rank 0."""
    return is_one_video(arguments) and ranks()[0] > 0


def for_all_ranks(config: GenerationConfig) -> GenerationConfig:
    """The configuration of a video that all processes make together. Raises: UsageError."""
    from pavdm_cli.generation.processes import configure_processes

    return configure_processes(config, ranks()[2])


def work() -> None:
    """Run the model for rank 0 until that process ends; prints nothing, unless rank 0 could not.

    A signal ends this process only before it joins the others: afterwards rank 0 finishes its chunk first.
    """
    _handle_signals(signal.SIG_DFL)
    threading.Thread(target=_exit_after_main, daemon=True).start()
    from pavdm_cli.models.parallel import Channel
    from pavdm_cli.models.worker import EndedError, Worker

    rank, local_rank, world_size = ranks()
    worker = Worker(Channel(rank, world_size), local_rank)
    _handle_signals(signal.SIG_IGN)
    code = 0
    try:
        while True:
            worker.serve_call()
    except EndedError:  # rank 0 reports it
        pass
    except RuntimeError:  # the connection to rank 0 is closed
        code = _report_lost_main()
    os._exit(code)  # threads of the connection may still run


def _report_lost_main() -> int:
    """Print that rank 0 has ended, unless it exited cleanly; returns the exit code."""
    store = _agent_store()
    for _ in range(LAST_POLLS):  # rank 0 may be about to report that a third process has ended
        if store is None or store.check([FINISHED]):
            return 0
        time.sleep(POLL_SECONDS)
    error = DeviceError("process 0, which writes the video, has ended", "`pavdm resume FILE` continues the video")
    ui.fail(error.message, error.hint)
    sys.stderr.flush()
    return error.exit_code


def stop_requested() -> AbstractContextManager[signals.Stop]:
    """Like `signals.stop_requested`, for a command that alone or with others makes a video."""
    return signals.stop_requested(interruptible=False, has_launcher=ranks()[2] > 1)


def dismiss_workers(arguments: Sequence[str]) -> None:
    """End the workers of a command that exits normally, even if it needed none (`--plan`)."""
    with suppress(RuntimeError, UsageError):  # torchrun itself has ended, or its variables are invalid
        if is_one_video(arguments) and ranks()[0] == 0 and (store := _agent_store()):
            store.set(FINISHED, "")


def _exit_after_main() -> None:
    """End this process once rank 0 has finished."""
    if store := _agent_store():
        with suppress(RuntimeError):
            while not store.check([FINISHED]):
                time.sleep(POLL_SECONDS)
        os._exit(0)


def _handle_signals(handler: signal.Handlers) -> None:
    for name in ("SIGINT", "SIGHUP", *SCHEDULER):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


def _agent_store() -> Any:
    """The key-value store of torchrun, if it has started this process."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(*address, is_master=False, timeout=STORE_TIMEOUT)
    return PrefixStore(f"pavdm {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def report_error_once(line: str, report: Callable[[], None]) -> None:
    """Report an error that ends this process; under torchrun, only in the first process that reaches it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or ranks()[2] == 1 or is_one_video(sys.argv):
        report()
        return
    from pavdm_cli.models import distributed

    store = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    distributed.report_once(line, report, store, ranks()[2])
