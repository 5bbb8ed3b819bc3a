"""The error for a video that does not fit in memory, with the options that would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pavdm_cli.errors import DeviceError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_parts import STAGES
from pavdm_cli.generation.memory_plan import MemoryPlan, choose_plan
from pavdm_cli.generation.request import SIZES
from pavdm_cli.hub.weight_memory import gigabytes


def build_memory_error(plan: MemoryPlan) -> DeviceError:
    """The error for a video that does not fit, with options that would help and what they save."""
    device_memory = next(each for each in plan.devices if each.overflowing_stages())
    stage = max(device_memory.overflowing_stages(), key=lambda i: device_memory.needs[i])
    name, size = max(((name, part[stage]) for name, part in device_memory.parts.items()), key=lambda pair: pair[1])
    need, device = gigabytes(device_memory.needs[stage]), device_memory.device.type
    problem = f"{plan.config.spec.name} needs {need} on {device} to {STAGES[stage]}"
    assert device_memory.free is not None
    largest_part = f"mostly {name}, {gigabytes(size)}"
    return DeviceError(f"{problem} ({largest_part}), but only {gigabytes(device_memory.free)} is free", _advice(plan))


def _advice(plan: MemoryPlan) -> str:
    """A hint listing options that help, sufficient ones first; if none suffices, the smallest set of them that does."""
    candidates = [(option, choose_plan(smaller)) for option, smaller in propose_savings(plan.config)]
    saving = [(after.fits, _saving(plan, after), option) for option, after in candidates]
    useful = sorted((row for row in saving if row[0] or row[1] > 0), key=lambda row: (not row[0], -row[1]))
    if not any(fits for fits, _, _ in useful):
        return _combined_advice(plan)
    short = ", not enough on its own"
    return "; ".join(f"{option} saves {gigabytes(size)}{'' if fits else short}" for fits, size, option in useful)


def _combined_advice(plan: MemoryPlan) -> str:
    """A hint where no single option suffices: several that do together, or how much memory is needed at least."""
    options = list[str]()
    while not plan.fits:
        candidates = [(option, choose_plan(smaller)) for option, smaller in propose_savings(plan.config)]
        candidates = [(option, after) for option, after in candidates if after.fits or _saving(plan, after) > 0]
        if not candidates:
            break
        # What fits comes first, then what changes no frame, then what saves most.
        option, plan = max(
            candidates,
            key=lambda pair: (pair[1].fits, not pair[0].startswith("--size"), _saving(plan, pair[1])),
        )
        options = [name for name in options if name.split()[0] != option.split()[0]] + [option]
    if plan.fits:
        return f"no option is enough on its own, but these are together: {' '.join(options)}"
    overflowing = next(each for each in plan.devices if each.overflowing_stages())
    even = f"even with {' '.join(options)} it needs" if options else "it needs"
    return f"nothing makes it fit: {even} {gigabytes(max(overflowing.needs))} on {overflowing.device.type}"


def propose_savings(config: GenerationConfig) -> Iterator[tuple[str, GenerationConfig]]:
    """Options that take less memory, and the configuration with each."""
    execution, (height, width) = config.execution, config.spec.size
    has_text_device = any(option.key == "text_device" for option in config.video_model.options)
    if has_text_device and config.text_device.type != "cpu":
        yield "--text-device cpu", replace(config, options={**config.options, "text_device": "cpu"})
    for mode in ("model", "sequential"):
        if execution.offload == "none" or (execution.offload, mode) == ("model", "sequential"):
            yield _with_offload(config, mode)
    if execution.processes > 1 and not execution.sharded and execution.offload == "none":
        yield "--shard-weights on", config.with_execution(shard_weights="on")
    if execution.cfg_batching != "sequential" and config.guidance_scale != 1:
        yield "--cfg-batching sequential", config.with_execution(cfg_batching="sequential")
    if execution.overlap_decode == "on" and "overlap_decode" not in config.auto_switches:
        yield "--overlap-decode off", config.with_execution(overlap_decode="off")
    if execution.context_cache == "reuse" and not config.spec.causal:
        yield "--context-cache recompute", config.with_execution(context_cache="recompute")
    for name, size in reversed(SIZES.items()):
        if config.spec.size_multiple and size[0] * size[1] < height * width:
            yield f"--size {name}", replace(config, spec=replace(config.spec, size=config.spec.nearest_size(size)))


def _with_offload(config: GenerationConfig, mode: str) -> tuple[str, GenerationConfig]:
    """With --offload, without the options that need weights to stay in place."""
    open_overlap = "overlap_decode" in config.auto_switches
    conflicts = [name for name in config.execution.offload_conflicts if not (open_overlap and "overlap" in name)]
    graphs = "auto" if config.execution.cuda_graphs == "on" else config.execution.cuda_graphs
    offload_config = config.with_execution(
        offload=mode, cuda_graphs=graphs, overlap_decode="off", compile=False, shard_weights="off"
    )
    return f"--offload {mode}{''.join(f' without {name}' for name in conflicts)}", offload_config


def _saving(before: MemoryPlan, after: MemoryPlan) -> int:
    """The largest saving of a change in any stage that does not fit."""
    needs_after = {each.device.type: each.needs for each in after.devices}
    pairs = [(each, i) for each in before.devices for i in each.overflowing_stages()]
    return max(each.needs[i] - needs_after.get(each.device.type, (0, 0, 0, 0))[i] for each, i in pairs)
