"""The execution switches that `generate`, `extend` and `bench` share. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.untrusted import FLAG, changes_frames, integer, one_of, string
from pavdm_cli.runtime.validation import check_name

SWITCH = ("auto", "on", "off")
OFFLOADS = ("none", "model", "sequential")
CFG_BATCHING = ("auto", "batched", "sequential")
CONTEXT_CACHE = ("auto", "reuse", "recompute")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
ATTENTION = ("auto", "fa3", "cudnn", "sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math", "sdpa")
VAE_BATCH_SIZE, MAX_VAE_BATCH_SIZE = 4, 64
CHOICES = {
    "device": DEVICES,
    "attention": ATTENTION,
    "cuda_graphs": SWITCH,
    "overlap_decode": SWITCH,
    "vae_tiling": SWITCH,
    "offload": OFFLOADS,
    "shard_weights": SWITCH,
    "cfg_batching": CFG_BATCHING,
    "context_cache": CONTEXT_CACHE,
}


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """One switch per optimization. `resolve` decides what `auto` stands for, unless a comment says otherwise.

    Raises: UsageError on values that exclude one another.
    """

    device: str = field(default="auto", metadata=changes_frames(string(100)))
    threads: int = field(default=0, metadata=changes_frames(integer(0, 1 << 16)))  # 0: torch's default
    # backend; auto: chosen when the model is loaded
    attention: str = field(default="auto", metadata=changes_frames(string(100)))
    # reuse: keys and values of the context are computed once per shift
    context_cache: str = field(default="auto", metadata=changes_frames(one_of(*CONTEXT_CACHE)))
    precision: str = field(default="auto", metadata=changes_frames(one_of(*PRECISIONS)))  # of matmuls
    cfg_batching: str = field(default="auto", metadata=changes_frames(one_of(*CFG_BATCHING)))
    # overlapping tiles: less memory, slightly different frames
    vae_tiling: str = field(default="auto", metadata=changes_frames(one_of(*SWITCH)))
    # frames of 240p in the VAE at a time; 0: as many as fit in memory, up to VAE_BATCH_SIZE
    vae_batch_size: int = field(default=0, metadata=changes_frames(integer(1, MAX_VAE_BATCH_SIZE)))
    compile: bool = field(default=False, metadata=changes_frames(FLAG))  # transformer blocks by torch.compile
    cuda_graphs: str = "auto"  # auto: if kernel launches are the bottleneck, decided when the model is loaded
    overlap_decode: str = "auto"  # decode a chunk while the next ones are denoised
    processes: int = 1  # that make the video together, each on a device of its own
    shard_weights: str = "auto"  # each of them holds a share of the transformer; auto: if it does not fit otherwise
    offload: str = "none"  # model: one part at a time on the device; sequential: one transformer block at a time
    cache_modulation: bool = True  # compute the AdaLN vectors of all levels once per video
    cache_text: bool = True  # compute the keys and values of the text once per prompt
    fused_kernels: bool = True  # else their references in plain torch

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_name(f"--{name.replace('_', '-')}", getattr(self, name), choices)
        if not 0 <= self.vae_batch_size <= MAX_VAE_BATCH_SIZE:
            raise UsageError(
                f"--vae-batch-size must be 0 to {MAX_VAE_BATCH_SIZE}, got {self.vae_batch_size}", "0 is automatic"
            )
        if self.offload != "none" and (conflicts := self.offload_conflicts):
            raise UsageError(
                f"{conflicts[0]} cannot be combined with --offload, which moves weights", "omit one of them"
            )
        reject_graph_conflict(self.cuda_graphs, self.graph_conflict)

    @property
    def graph_conflict(self) -> str:
        """The option that rules out CUDA graphs, and why; empty where steps can be captured."""
        if not (self.cache_modulation and self.cache_text):
            return "uncached text or timesteps, which copy something from the CPU at every step"
        if self.processes > 1:
            return "several processes, which exchange tensors in every step"
        return "" if self.offload == "none" else "--offload, which moves weights"

    @property
    def offload_conflicts(self) -> list[str]:
        """The options that need all weights to stay in place."""
        names = ("cuda_graphs", "overlap_decode", "shard_weights")
        switches = [f"--{name.replace('_', '-')} on" for name in names if getattr(self, name) == "on"]
        return switches + ["--compile"] * self.compile

    @property
    def sharded(self) -> bool:
        """Whether no process holds all of the transformer's weights."""
        return self.processes > 1 and self.shard_weights == "on"

    @property
    def reuse_context(self) -> bool:
        """Whether the context's keys and values are cached until the window shifts."""
        assert self.context_cache != "auto", "resolve decides on the context cache"
        return self.context_cache == "reuse"


def reject_graph_conflict(cuda_graphs: str, graph_conflict: str) -> None:
    """Reject CUDA graphs that are "on" next to an option that rules them out. Raises: UsageError."""
    if cuda_graphs == "on" and graph_conflict:
        raise UsageError(f"--cuda-graphs on cannot be combined with {graph_conflict}", "omit one of them")


REFERENCE = ExecutionConfig(
    cache_modulation=False,
    cache_text=False,
    context_cache="recompute",
    fused_kernels=False,
    cuda_graphs="off",
    overlap_decode="off",
)
