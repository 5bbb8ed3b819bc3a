"""The options of `pavdm train`, each explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.commands.options import MOST_THREADS, check_finite

MOST_STEPS, MOST_BATCH = 10**9, 1 << 20
PAINTED, TUNED = "Pocket, on its painted world", "Open-Sora, on your videos"

Folder = Annotated[Path, typer.Option(help="Checkpoints, log, sheets and weights; a run goes on from what is there.")]
StepCount = Annotated[
    int, typer.Option(min=1, max=MOST_STEPS, help="Steps in all; the rate falls to zero over the last third.")
]
Rate = Annotated[float, typer.Option(min=0, max=10, callback=check_finite, help="Learning rate.")]
Batch = Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Pairs of frames a step.")]
Detail = Annotated[
    float, typer.Option(min=0, max=1, callback=check_finite, help="How rich the painted world is: 0.3 suits a CPU.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(min=0, max=MOST_THREADS, help="CPU threads; 0: as torch likes.")]
SheetMinutes = Annotated[
    float, typer.Option(min=0, max=MOST_STEPS, callback=check_finite, help="Minutes between contact sheets.")
]
CodecInit = Annotated[Path | None, typer.Option(help="Weights to start from: a codec.safetensors.")]
KeepLatents = Annotated[
    bool, typer.Option("--keep-latents", help="Train the decoder alone: denoisers made for --init still fit.")
]

Init = Annotated[
    str | None,
    typer.Option(help="What to start from: a denoiser.safetensors, opensora-v1.2, or a folder of weights like it."),
]
Method = Annotated[str, typer.Option(help="base: one level for all. pa: progressive. rw: with noise.")]
OwnRate = Annotated[
    float | None,
    typer.Option(min=0, max=10, callback=check_finite, help="Learning rate; 0.0015, for Open-Sora 0.0001."),
]
OwnBatch = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_BATCH, help="Windows per batch, of all processes together; 16, for Open-Sora 2."),
]
Codec = Annotated[
    Path | None, typer.Option(help="The codec to train over; its own unless given.", rich_help_panel=PAINTED)
]
Clips = Annotated[
    int,
    typer.Option(
        min=1,
        max=MOST_BATCH,
        help="Clips to render and keep as latents; as many again, up to 128, are held out for validation.",
        rich_help_panel=PAINTED,
    ),
]
WorldDetail = Annotated[
    float,
    typer.Option(
        min=0, max=1, callback=check_finite, help="How rich the world is: 0.3 suits a CPU.", rich_help_panel=PAINTED
    ),
]
Distil = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        callback=check_finite,
        help="Learn to give in one pass what this guidance gives --init, the teacher, in two.",
        rich_help_panel=PAINTED,
    ),
]
Sheets = Annotated[
    float,
    typer.Option(
        min=0, max=MOST_STEPS, callback=check_finite, help="Minutes between contact sheets.", rich_help_panel=PAINTED
    ),
]

Data = Annotated[
    Path | None,
    typer.Option(
        help="A folder of videos, and folders in it, with captions: NAME.txt beside NAME.mp4, or one CSV file of "
        "columns path,text (or video,caption), called captions.csv where there are several.",
        rich_help_panel=TUNED,
    ),
]
Size = Annotated[
    str | None, typer.Option(help="WIDTHxHEIGHT of the clips, or 144p to 720p; 424x240.", rich_help_panel=TUNED)
]
Fps = Annotated[int | None, typer.Option(help="Frames per second of the clips; 24.", rich_help_panel=TUNED)]
Window = Annotated[int | None, typer.Option(min=1, help="Noisy latents in a window; 30.", rich_help_panel=TUNED)]
Chunk = Annotated[int | None, typer.Option(min=1, help="Latents that share a noise level; 5.", rich_help_panel=TUNED)]
Precision = Annotated[
    str, typer.Option(help="bf16: products in bfloat16, weights kept in float32. fp32.", rich_help_panel=TUNED)
]
Checkpointing = Annotated[
    bool, typer.Option(help="Compute blocks twice, to keep little of them in memory.", rich_help_panel=TUNED)
]
Accumulate = Annotated[
    int, typer.Option(min=1, max=MOST_BATCH, help="Batches whose gradients make a step.", rich_help_panel=TUNED)
]
Warmup = Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Steps until the full rate.", rich_help_panel=TUNED)]
Every = Annotated[
    int,
    typer.Option(
        min=1, max=MOST_STEPS, help="Steps between checkpoint, held-out loss and weights.", rich_help_panel=TUNED
    ),
]
HeldOut = Annotated[
    int | None,
    typer.Option(min=0, help="Videos held out for validation; one in twenty, from ten on.", rich_help_panel=TUNED),
]
Score = Annotated[
    float,
    typer.Option(callback=check_finite, help="Said of captions that say none; 0: nothing.", rich_help_panel=TUNED),
]
