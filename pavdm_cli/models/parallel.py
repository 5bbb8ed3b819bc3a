"""One video in several processes: rank 0 runs the sampler, workers run forward passes for it on their own devices.

Rank 0 encodes prompts, draws noise, solves, decodes and writes. For each call of the transformer it broadcasts the
inputs; with guidance, ranks of odd number run the unconditional pass, and rank 1 sends back the velocity. Calls travel
over gloo, which detects immediately that a process ended, and so do tensors on a CPU. Where the weights are sharded,
all processes gather them in every call, so that they make the same calls in the same order.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pavdm_cli.errors import DeviceError, PavdmError
from pavdm_cli.models.adapter import Options, Placement, TextEmbedding
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.diagnose import diagnose
from pavdm_cli.sampling.denoiser import Cache
from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.schedule import Schedule

JOIN_TIMEOUT = timedelta(hours=1)  # for rank 0 to check the request and to plan memory
FAILURE = "pavdm: why a process failed"  # key of the store
CALL_TIMEOUT = timedelta(days=7)  # between calls rank 0 decodes and writes; ended processes are noticed without it


class LostProcessError(DeviceError):
    """Another process of the same video has failed or ended."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Handle:
    """A value that every worker keeps for rank 0 until the handle is dropped."""

    key: int


@dataclass(frozen=True, slots=True)
class Message:
    """A call to the workers; its tensors follow."""

    method: str
    result: int  # key under which workers keep the result
    arguments: tuple[Any, ...]
    dropped: tuple[int, ...]  # keys no longer in use
    tensors: tuple[tuple[torch.Size, torch.dtype], ...]


class Channel:
    """What all processes of a video exchange."""

    def __init__(self, rank: int, world_size: int) -> None:
        """Join the processes that torchrun started. Raises: DeviceError."""
        if not dist.is_available():
            raise DeviceError("this build of torch does not support several processes", "start it without torchrun")
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=JOIN_TIMEOUT)
        self.rank, self.world_size = rank, world_size
        self.group = dist.new_group(backend="gloo", timeout=CALL_TIMEOUT)

    def broadcast(self, message: Message | None) -> Message:
        """The message of rank 0."""
        messages = [message]
        dist.broadcast_object_list(messages, src=0, group=self.group, device=HOST)
        assert messages[0]
        return messages[0]

    def broadcast_tensor(self, tensor: Tensor) -> None:
        """Overwrite a contiguous tensor with that of rank 0."""
        dist.broadcast(tensor, src=0, group=self._group_of(tensor))

    def gather(self, error: PavdmError | None) -> list[PavdmError | None]:
        """On rank 0 the error of every process, elsewhere nothing."""
        errors: list[Any] = [None] * self.world_size if self.rank == 0 else []
        dist.gather_object(error, errors or None, dst=0, group=self.group)
        return errors

    def send(self, tensor: Tensor) -> None:
        """Send a tensor to rank 0."""
        dist.send(tensor.contiguous(), dst=0, group=self._group_of(tensor))

    def receive(self, like: Tensor) -> Tensor:
        """The tensor of this shape that rank 1 sends."""
        tensor = torch.empty_like(like, memory_format=torch.contiguous_format)
        dist.recv(tensor, src=1, group=self._group_of(tensor))
        return tensor

    def publish_failure(self, error: PavdmError) -> None:
        """Say why this process ends, while others may wait for it in a collective."""
        with suppress(RuntimeError, ValueError):
            _store().set(FAILURE, pickle.dumps((self.rank, error)))

    def lost_process_error(self) -> LostProcessError:
        """The error for a process that has ended, with its reason if it said one."""
        try:
            rank, error = pickle.loads(_store().get(FAILURE)) if _store().check([FAILURE]) else (0, None)
        except (RuntimeError, ValueError):  # the store has ended too, or there is none
            error = None
        if error:
            return LostProcessError(f"process {rank} failed: {error.message}", error.hint)
        hint = "its own messages or the system log say why; `dmesg` shows whether memory ran out"
        return LostProcessError("another process of this video has ended", hint)

    def _group_of(self, tensor: Tensor) -> Any:
        return None if tensor.is_cuda else self.group


class Workers:
    """The workers as rank 0 sees them. Each method raises LostProcessError if one has ended, or its error."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._keys, self._dropped = count(), list[int]()

    def begin(self, method: str, *arguments: Any, tensors: Sequence[Tensor] = ()) -> tuple[Handle, Callable[[], None]]:
        """Begin a call in every worker; returns a handle of its result, and a function that waits for its start."""
        key = next(self._keys)
        dropped_keys = tuple(self._dropped.pop() for _ in range(len(self._dropped)))  # more may be dropped meanwhile
        message = Message(
            method, key, arguments, dropped_keys, tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        )
        try:
            self.channel.broadcast(message)
            for tensor in tensors:
                self.channel.broadcast_tensor(tensor.contiguous())
        except RuntimeError as error:
            raise self.channel.lost_process_error() from error
        handle = Handle(key)
        weakref.finalize(handle, self._dropped.append, key)
        return handle, self._wait

    def _wait(self) -> None:
        """Wait until every worker has run the last call, or on a GPU has launched it."""
        try:
            errors = self.channel.gather(None)
        except RuntimeError as error:
            raise self.channel.lost_process_error() from error
        for rank, failure in enumerate(errors):
            if failure:
                raise LostProcessError(f"process {rank} failed: {failure.message}", failure.hint)

    def load(
        self,
        spec: ModelSpec,
        placement: Placement,
        execution: ExecutionConfig,
        options: Options,
    ) -> Callable[[], None]:
        """Begin to load the transformer; returns a function that waits for it."""
        _, wait = self.begin("load", spec, replace(placement, load_vae=False), execution, options)
        return wait

    def text_kv(self, text: Sequence[Sequence[TextEmbedding]], schedule: Schedule, execution: ExecutionConfig) -> Any:
        """Begin `LoadedModel.text_kv` for the texts of each pass; returns a function that waits for the handle."""
        on_host = [[_to_host(embedding) for embedding in texts] for texts in text]
        handle, wait = self.begin("text_kv", on_host, schedule, execution)

        def result() -> Handle:
            wait()
            return handle

        return result

    def bind(
        self, schedule: Schedule, levels: NoiseLevels, execution: ExecutionConfig, guidance: float
    ) -> Callable[[], Callable[[Handle], WorkerPass]]:
        """Begin `ModelRunner.bind`; returns a function that waits for the workers' denoisers."""
        handle, wait = self.begin("bind", schedule, levels.to(HOST), execution)

        def result() -> Callable[[Handle], WorkerPass]:
            wait()
            return lambda text: WorkerPass(self, handle, text, returns=guidance != 1)

        return result

    def gather_weights(self) -> Callable[[], None]:
        """Begin to gather every weight of the transformer; returns a function that waits for the workers."""
        _, wait = self.begin("gather_weights")
        return wait

    @contextmanager
    def translate_connection_errors(self) -> Iterator[None]:
        """Around what rank 0 computes meanwhile: a failed connection becomes LostProcessError."""
        try:
            yield
        except RuntimeError as error:
            if is_lost_connection(error):
                raise self.channel.lost_process_error() from error
            raise


@dataclass(frozen=True, slots=True)
class WorkerPass:
    """The workers' denoiser of one text; implements `RemotePass`."""

    workers: Workers
    denoiser: Handle
    text: Handle
    returns: bool  # rank 1 sends back its velocity

    def begin_prefill(self, context: Tensor, level: int, /) -> Callable[[], Cache]:
        """See `RemotePass.begin_prefill`."""
        keys = self.denoiser.key, self.text.key
        handle, wait = self.workers.begin("prefill", *keys, level, tensors=[context])

        def result() -> Handle:
            wait()
            return handle

        return result

    def begin_velocity(self, window: Tensor, levels: Tensor, cache: Cache | None, /) -> Callable[[], Tensor | None]:
        """See `RemotePass.begin_velocity`."""
        keys = self.denoiser.key, self.text.key, cache.key if cache else None
        _, wait = self.workers.begin("velocity", *keys, self.returns, tensors=[window, levels])

        def result() -> Tensor | None:
            wait()
            try:
                return self.workers.channel.receive(window) if self.returns else None
            except RuntimeError as error:
                raise self.workers.channel.lost_process_error() from error

        return result


def _to_host(text: TextEmbedding) -> TextEmbedding:
    return replace(text, embeds=text.embeds.cpu(), mask=None if text.mask is None else text.mask.cpu())


def worker_error(error: Exception) -> PavdmError:
    """An error as it is sent to rank 0, without what cannot be pickled."""
    diagnosis = diagnose(error)
    return PavdmError(diagnosis.message, diagnosis.hint)


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective failed because another process has ended."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _store() -> Any:
    """The store in which all processes met."""
    return dist.distributed_c10d._get_default_store()
