"""How the work is done and how a prompt is encoded: options that `generate`, `extend` and `bench` share. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.validation import check_name

SWITCH = ("auto", "on", "off")
OFFLOADS = ("none", "model", "sequential")
CFG_BATCHING = ("auto", "batched", "sequential")
CONTEXT_CACHE = {True: "reuse", False: "recompute"}  # how the command line says `Engine.reuse_context`
DEVICES = ("auto", "cpu", "cuda", "mps")
ATTENTION = ("auto", "fa3", "cudnn", "sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math", "sdpa")


def check_graphs_on(wanted: str, unrecordable: str) -> None:
    """Refuse graphs that are wanted "on" beside an option that rules them out. Raises: UsageError."""
    if wanted == "on" and unrecordable:
        raise UsageError(f"--cuda-graphs on does not go with {unrecordable}", "leave one of them out")


@dataclass(frozen=True, slots=True)
class Engine:
    """How the work is done, one switch an optimisation; only an inexact overlap memory changes the picture."""

    attention: str = "auto"  # or the name of a back end
    table: bool = True  # modulation vectors of all levels once a video, else at every step
    text_memory: bool = True  # keys and values of the text once a prompt, else at every step
    reuse_context: bool | None = None  # those of the clean overlap once a shift; None: where that is exact
    fused: bool = True  # kernels and joined operations, else their references in plain torch
    cuda_graphs: str = "auto"  # steps recorded and replayed: where launching them is the limit, or always ("on")
    overlap_decode: str = "auto"  # chunks decoded while the next are made: on a GPU, or always ("on")
    compile: bool = False  # blocks as graphs of torch.compile
    offload: str = "none"  # what waits on the host for its turn: nothing, whole parts, or also the transformer's blocks
    cfg_batching: str = "auto"  # both forward passes of guidance in one batch ("batched"), or "sequential"
    pictures: int = 4  # of 240p that the codec works on at a time
    vae_tiling: str = "auto"  # code in overlapping tiles: slightly different frames; auto: where memory is short

    @property
    def unrecordable(self) -> str:
        """The option with which no step can be recorded, and why; empty where steps can be."""
        if not (self.table and self.text_memory):
            return "uncached text or timesteps, which copy something from the CPU at every step"
        return "" if self.offload == "none" else "--offload, which moves weights"

    def overlaps_decode(self, kind: str) -> bool:
        """Whether a chunk is decoded while the next is made, on this kind of device; not where weights make room."""
        return self.overlap_decode == "on" or (
            self.overlap_decode == "auto" and kind == "cuda" and self.offload == "none"
        )

    def __post_init__(self) -> None:
        check_name("--attention", self.attention, ATTENTION)
        for name in ("cuda_graphs", "overlap_decode", "vae_tiling"):
            check_name(f"--{name.replace('_', '-')}", getattr(self, name), SWITCH)
        check_name("--offload", self.offload, OFFLOADS)
        check_name("--cfg-batching", self.cfg_batching, CFG_BATCHING)
        if self.offload != "none" and self.fixed:
            raise UsageError(
                f"{self.fixed[0]} does not go with --offload, which moves weights", "leave one of them out"
            )
        check_graphs_on(self.cuda_graphs, self.unrecordable)

    @property
    def fixed(self) -> list[str]:
        """The options asked for that weights must stay in place for."""
        asked = {"--cuda-graphs on": self.cuda_graphs, "--overlap-decode on": self.overlap_decode}
        return [name for name, value in asked.items() if value == "on"] + ["--compile"] * self.compile

    @property
    def loosened(self) -> dict[str, Any]:
        """What is otherwise without those options."""
        asked = {"cuda_graphs": self.cuda_graphs, "overlap_decode": self.overlap_decode}
        return {name: "auto" for name, value in asked.items() if value == "on"} | {"compile": False}


PLAIN = Engine(
    table=False, text_memory=False, reuse_context=False, fused=False, cuda_graphs="off", overlap_decode="off"
)
