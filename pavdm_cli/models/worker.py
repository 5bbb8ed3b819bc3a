"""A worker: runs the forward passes that rank 0 asks for (see `parallel`) until that process ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import PavdmError
from pavdm_cli.models.adapter import Options, Placement, TextEmbedding
from pavdm_cli.models.devices import HOST, set_threads
from pavdm_cli.models.distributed import full_tensor
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.parallel import Channel, is_lost_connection, worker_error
from pavdm_cli.models.registry import find
from pavdm_cli.models.runner import ModelRunner, with_attention, with_offload
from pavdm_cli.models.sharding import with_sharding
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.sampling.denoiser import Denoiser, TextKV
from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.schedule import Schedule


class EndedError(RuntimeError):
    """This process must end; its reason is published."""


class NoTextEncoder:
    """Rank 0 encodes the prompts."""

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Never called."""
        raise AssertionError("workers get encoded prompts")

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """Nothing."""
        return {}


class Worker:
    """The state of a worker: its model, and the results that rank 0 still refers to."""

    def __init__(self, channel: Channel, local_rank: int) -> None:
        self.channel, self.local_rank = channel, local_rank
        self.values: dict[int, Any] = {}
        self.runner: ModelRunner | None = None
        self.device = HOST

    def serve_call(self) -> None:
        """Run one call of rank 0. Raises: RuntimeError once rank 0 has ended."""
        message = self.channel.broadcast(None)
        tensors = [torch.empty(shape, dtype=dtype, device=self.device) for shape, dtype in message.tensors]
        for tensor in tensors:
            self.channel.broadcast_tensor(tensor)
        for key in message.dropped:
            self.values.pop(key, None)
        error: PavdmError | None = None
        result = None
        try:
            result = getattr(self, message.method)(*message.arguments, *tensors)
        except Exception as exception:
            if isinstance(exception, RuntimeError) and is_lost_connection(exception):
                raise
            error = worker_error(exception)
            if self.runner and self.runner.sharded:  # rank 0 may wait for this process in the middle of the call
                self.channel.publish_failure(error)
                raise EndedError from exception
        self.channel.gather(error)
        if message.method == "velocity":
            if result is not None and self.channel.rank == 1:
                self.channel.send(result)
        else:
            self.values[message.result] = result

    def load(
        self,
        spec: ModelSpec,
        placement: Placement,
        execution: ExecutionConfig,
        options: Options,
    ) -> None:
        """Load the transformer alone. Raises: ModelError, DeviceError."""
        set_threads(execution.threads)
        if placement.device.type == "cuda":
            torch.cuda.set_device(self.local_rank)
        video_model = find(spec.name)
        model = video_model.load(placement, "weights")
        self.device = placement.device
        runner = ModelRunner(spec, video_model, model, NoTextEncoder(), placement.device, "", options)
        runner = with_attention(with_offload(runner, execution.offload), execution.attention)
        self.runner = with_sharding(runner, execution)

    def gather_weights(self) -> None:
        """Take part in gathering the weights for rank 0."""
        assert self.runner
        for weight in self.runner.transformer.state_dict().values():
            full_tensor(weight)

    def text_kv(self, text: list[list[TextEmbedding]], schedule: Schedule, execution: ExecutionConfig) -> TextKV:
        """Keys and values of the text of this rank's pass."""
        assert self.runner
        (text_kv,) = self.runner.text_kv(text[self.channel.rank % len(text)], schedule, execution)
        return text_kv

    def bind(
        self, schedule: Schedule, levels: NoiseLevels, execution: ExecutionConfig
    ) -> Callable[[tuple[TextKV, ...]], Denoiser]:
        """Like `ModelRunner.bind`, for one pass."""
        assert self.runner
        return self.runner.bind(schedule, levels.to(self.device), 1.0, execution)

    def prefill(self, denoiser: int, text: int, level: int, context: Tensor) -> Any:
        """See `Denoiser.prefill`."""
        return self.values[denoiser]((self.values[text],)).prefill(context, level)

    def velocity(
        self, denoiser: int, text: int, cache: int | None, returns: bool, window: Tensor, levels: Tensor
    ) -> Tensor | None:
        """See `Denoiser.__call__`; None unless `returns`."""
        bound_denoiser = self.values[denoiser]((self.values[text],))
        velocity: Tensor = bound_denoiser(window, levels, None if cache is None else self.values[cache])
        return velocity if returns else None
