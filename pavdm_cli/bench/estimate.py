"""Estimates how long a video takes before anything is loaded, from its operations and this device's throughput.

A stage takes TFLOP / (rate * efficiency). The rate is that of one matmul, measured for a fraction of a second; the
efficiency is a stored ratio, measured by `benchmarks/efficiency.py` if `Efficiency.measured`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.bench.ceilings import matmul_seconds, matmul_side
from pavdm_cli.bench.steps import step_flops
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_plan import meta_model_of, text_bytes
from pavdm_cli.models.devices import HOST, set_threads
from pavdm_cli.models.meta_model import module_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import Efficiency
from pavdm_cli.runtime.printable import format_estimate

QUICK = 0.5  # seconds of matmuls
PARTS = ("load", "denoise", "decode", "write")


DEFAULT_EFFICIENCY = Efficiency(denoise=0.4, decode=0.3, error_factor=2.5, measured=False)
WRITE_TFLOP = 2e-8  # of matmuls on a CPU that take as long as encoding a pixel
READ_RATE = 1e9  # bytes of weights per second
START = 1.5  # seconds to import torch and open a model, whatever its size


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds by stage; a video takes between `low` and `high` seconds."""

    seconds: dict[str, float]
    error_factor: float
    measured: bool
    tflop: float  # of denoising
    rate: float  # TFLOP/s of a matmul on this device at present

    @property
    def total(self) -> float:
        """The sum of all stages; overlapped decoding and writing take less."""
        return sum(self.seconds.values())

    @property
    def low(self) -> float:
        """The lower end of the likely range."""
        return self.total / self.error_factor

    @property
    def high(self) -> float:
        """The upper end of the likely range."""
        return self.total * self.error_factor


def estimate(config: GenerationConfig, pixels: int) -> Estimate:
    """The time that a video takes here; pixels: of all frames that are written."""
    set_threads(config.execution.threads)
    device = config.device
    on_cpu = quick_rate(HOST, torch.float32)  # for bf16 too, where throughput depends much more on the size
    dtype = torch.bfloat16 if config.execution.precision == "bf16" else torch.float32
    rate = on_cpu if device == HOST else quick_rate(device, dtype)
    efficiency = config.spec.efficiency.get(f"{device.type} {config.execution.precision}", DEFAULT_EFFICIENCY)
    model = meta_model_of(config)
    denoising = denoise_tflop(config, model)
    decoding = decode_tflop(model) * -(-config.frames // config.layout.unit_frames)
    weights = module_bytes(model.transformer) + module_bytes(model.vae) + text_bytes(config).get("weights", 0)
    seconds = {
        "load": START + weights / READ_RATE,
        "denoise": denoising / (rate * efficiency.denoise),
        "decode": decoding / (rate * efficiency.decode),
        "write": pixels * WRITE_TFLOP * torch.get_num_threads() / on_cpu,
    }
    return Estimate(seconds, efficiency.error_factor, efficiency.measured, denoising, rate)


def quick_rate(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of matmuls at present: the median includes the effect of other programs on the device."""
    return float(2e-12 * matmul_side(device) ** 3 / median(matmul_seconds(device, dtype, QUICK)))


def denoise_tflop(config: GenerationConfig, model: ModelRunner) -> float:
    """TFLOP of all steps of a video, ramp-up and ramp-down included."""
    tokens = token_count(config, model)
    counts = pass_sizes(config).items()
    return 1e-12 * sum(count * step_flops(config, model, noisy, clean, tokens) for (noisy, clean), count in counts)


def pass_sizes(config: GenerationConfig) -> Counter[tuple[int, int]]:
    """How many passes show so many noisy and so many clean latents: one a step, and another if the step is guided."""
    schedule = config.schedule
    chunks = (config.total_steps - schedule.steps) // schedule.stride + 1
    windows = [schedule.active_chunks(step, 0, chunks) for step in range(config.total_steps)]
    shorter = schedule.without_right_context
    sizes_if_guided = (shorter.size(window, 0, 0) for window in windows if schedule.is_guided(window))
    return Counter(schedule.size(window, 0, 0) for window in windows) + Counter(sizes_if_guided)


def token_count(config: GenerationConfig, model: ModelRunner) -> int:
    """Tokens of the prompt, or of the null embedding."""
    if not config.prompt:
        return len(model.model.unconditional(None, None).embeds)
    return config.video_model.count_tokens(config.formatted_prompt.text)


def decode_tflop(model: ModelRunner) -> float:
    """TFLOP of decoding one unit of latents: of its convolutions and linear layers, on a model without contents.

    Counted here because torch's own counter imports Triton.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # A transposed convolution multiplies each input value by the weights of a channel.
        is_transposed = getattr(layer, "transposed", False)
        total += 2 * (inputs[0] if is_transposed else output).numel() * weight[0].numel()

    layers = [m for m in model.vae.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    latents = torch.zeros(1, model.layout.unit, *model.layout.shape, device="meta", dtype=model.model.dtype)
    model.decode(latents)
    for hook in hooks:
        hook.remove()
    return total * 1e-12


def figures(estimate: Estimate) -> dict[str, Any]:
    """An estimate for scripts, in seconds and TFLOP/s."""
    return {
        "estimated_seconds": round(estimate.total, 2),
        "low_seconds": round(estimate.low, 2),
        "high_seconds": round(estimate.high, 2),
        "parts_seconds": {name: round(seconds, 3) for name, seconds in estimate.seconds.items()},
        "denoise_tflop": round(estimate.tflop, 4),
        "matmul_tflops": round(estimate.rate, 4),
        "calibrated": estimate.measured,
    }


def lines(estimate: Estimate) -> list[tuple[str, str]]:
    """An estimate for people, a line a part."""
    rows = [(name, format_estimate(seconds)) for name, seconds in estimate.seconds.items()]
    basis = f"{estimate.tflop:.3g} TFLOP to denoise, matmuls run at {estimate.rate:.2g} TFLOP/s now"
    kind = "" if estimate.measured else "; never measured on such a device"
    total, low, high = map(format_estimate, (estimate.total, estimate.low, estimate.high))
    return [
        *rows,
        ("total", f"{total}, likely {low} to {high} ({basis}{kind})"),
    ]
