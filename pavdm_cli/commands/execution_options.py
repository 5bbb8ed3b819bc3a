"""Options for where and how fast a video is computed."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pavdm_cli.commands.common import complete
from pavdm_cli.commands.options import RUN_PANEL, SPEED_PANEL
from pavdm_cli.models.execution import ATTENTION, DEVICES, MAX_VAE_BATCH_SIZE

Device = Annotated[
    str,
    typer.Option(
        autocompletion=complete(DEVICES), help="auto (a GPU if available), cpu, cuda or mps.", rich_help_panel=RUN_PANEL
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(
        help="Matmul precision. bf16 is faster for pocket on CPUs with native bfloat16; auto: the model's default.",
        rich_help_panel=RUN_PANEL,
    ),
]
Attention = Annotated[
    str,
    typer.Option(
        autocompletion=complete(ATTENTION),
        help="auto, or a backend that `pavdm doctor` lists.",
        rich_help_panel=SPEED_PANEL,
    ),
]
ContextCache = Annotated[
    Literal["auto", "reuse", "recompute"],
    typer.Option(
        help="reuse: cache the keys and values of the clean context until the window shifts. recompute: compute them "
        "at every step. auto: whichever matches the model's training.",
        rich_help_panel=SPEED_PANEL,
    ),
]
MAX_THREADS = 1024  # far more threads than cores are very slow
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_THREADS,
        help="CPU threads; 0: one for each idle core (bench: torch's default).",
        rich_help_panel=RUN_PANEL,
    ),
]
CudaGraphs = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Capture steps as CUDA graphs and replay them; auto: only when launch-bound.", rich_help_panel=SPEED_PANEL
    ),
]
OverlapDecode = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Decode a chunk while the next one is denoised; auto: on CUDA without --offload, if both fit in memory.",
        rich_help_panel=SPEED_PANEL,
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network's blocks with torch.compile.", rich_help_panel=SPEED_PANEL),
]
Offload = Annotated[
    Literal["none", "model", "sequential"],
    typer.Option(
        help="CPU offload: model keeps each part on the host until it is used, sequential also each transformer block.",
        rich_help_panel=SPEED_PANEL,
    ),
]
VaeTiling = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Encode and decode in overlapping tiles: less memory, slightly different frames; auto: only if needed.",
        rich_help_panel=SPEED_PANEL,
    ),
]
VaeBatchSize = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_VAE_BATCH_SIZE,
        help="Frames that Open-Sora's VAE processes at once at 240p (fewer at larger sizes); smaller values save "
        "memory but may change frames slightly. 0: 4, or 1 if memory is short.",
        rich_help_panel=SPEED_PANEL,
    ),
]
CfgBatching = Annotated[
    Literal["auto", "batched", "sequential"],
    typer.Option(
        help="Classifier-free guidance in one batch, or in two forward passes; auto: what fits in memory.",
        rich_help_panel=SPEED_PANEL,
    ),
]
Plan = Annotated[
    bool,
    typer.Option(
        "--plan", help="Estimate memory and time, and exit without loading the model.", rich_help_panel=RUN_PANEL
    ),
]
