"""The options of `pavdm train`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.commands.execution_options import MAX_THREADS
from pavdm_cli.commands.options import check_finite

MOST_STEPS, MOST_BATCH = 10**9, 1 << 20
POCKET_PANEL, FINETUNE_PANEL = "Pocket, on its procedural world", "Open-Sora or Wan, on your videos"

detail_option = partial(
    typer.Option, min=0, max=1, callback=check_finite, help="Detail of the procedural world, 0 to 1; 0.3 suits a CPU."
)
contact_sheet_option = partial(
    typer.Option, min=0, max=MOST_STEPS, callback=check_finite, help="Minutes between contact sheets."
)

OutputDir = Annotated[
    Path,
    typer.Option(
        "--output-dir",
        "-d",
        help="Folder for checkpoints, log, contact sheets and weights; an existing run is resumed.",
    ),
]
StepCount = Annotated[
    int,
    typer.Option(
        min=1, max=MOST_STEPS, help="Training steps; the learning rate decays linearly to zero over the last third."
    ),
]
LearningRate = Annotated[float, typer.Option(min=0, max=10, callback=check_finite, help="Learning rate.")]
BatchSize = Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Pairs of frames per step.")]
Detail = Annotated[float, detail_option()]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(min=0, max=MAX_THREADS, help="CPU threads; 0: torch's default.")]
ContactSheetMinutes = Annotated[float, contact_sheet_option()]
VaeInit = Annotated[Path | None, typer.Option(help="Weights to start from: a vae.safetensors.")]
FreezeEncoder = Annotated[
    bool,
    typer.Option(
        "--freeze-encoder", help="Train only the decoder: the latents, and so denoisers trained on them, stay valid."
    ),
]

ExportedVae = Annotated[Path, typer.Option("--vae", help="The VAE: a vae.safetensors.")]
ExportedDenoiser = Annotated[Path, typer.Option("--denoiser", help="A denoiser.safetensors trained on its latents.")]
ExportFolder = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        "-d",
        help="Output folder, in which existing weights are replaced; pass it to --model. Default: pocket's own.",
    ),
]

Init = Annotated[
    str | None,
    typer.Option(help="Initial weights: a denoiser.safetensors, the name of a video model, or a folder of one."),
]
Method = Annotated[
    str, typer.Option(help="Noise levels. base: uniform; pa: progressive; rw: uniform, with a noised context.")
]
DenoiserLearningRate = Annotated[
    float | None,
    typer.Option(min=0, max=10, callback=check_finite, help="Learning rate. Default: 0.0015, for other models 0.0001."),
]
DenoiserBatchSize = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_BATCH, help="Batch size over all processes. Default: 16, for other models 2."),
]
VaeWeights = Annotated[
    Path | None,
    typer.Option(help="VAE that encodes the clips. Default: the bundled one.", rich_help_panel=POCKET_PANEL),
]
Clips = Annotated[
    int,
    typer.Option(
        min=1,
        max=MOST_BATCH,
        help="Training clips to render and encode. Up to 128 more are rendered for validation.",
        rich_help_panel=POCKET_PANEL,
    ),
]
WorldDetail = Annotated[float, detail_option(rich_help_panel=POCKET_PANEL)]
DistillGuidance = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        callback=check_finite,
        help="Guidance scale to distill into a single forward pass; --teacher sets the weights to distill.",
        rich_help_panel=POCKET_PANEL,
    ),
]
Teacher = Annotated[
    Path | None,
    typer.Option(
        help="Weights to distill, such as a teacher trained further, while --init has its earlier student. "
        "Default: those of --init.",
        rich_help_panel=POCKET_PANEL,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Training window in latent frames; 1: single latents. Default: the model's. For pocket only with --method "
        "base or rw; default: 14.",
    ),
]
Shift = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=100,
        callback=check_finite,
        help="Timestep shift of --method base: above 1 more of the training is at high noise.",
        rich_help_panel=POCKET_PANEL,
    ),
]
ObjectWeight = Annotated[
    float,
    typer.Option(
        min=0,
        max=1000,
        callback=check_finite,
        help="Extra loss weight of the object, added to the base weight of 1.",
        rich_help_panel=POCKET_PANEL,
    ),
]
MaxContext = Annotated[
    int,
    typer.Option(
        "--context",
        min=1,
        help="Windows follow 1 to N clean chunks; half of the longer contexts begin with the clip's first chunk.",
        metavar="N",
        rich_help_panel=POCKET_PANEL,
    ),
]
FillBatches = Annotated[
    bool,
    typer.Option(
        "--fill-batches",
        help="Larger batches of short windows: every step costs as much as --batch-size full windows.",
        rich_help_panel=POCKET_PANEL,
    ),
]
Oversample = Annotated[
    list[str] | None,
    typer.Option(
        "--oversample",
        help="Draw clips with this kind of object FACTOR times as often, such as airplane=3. Repeatable.",
        metavar="KIND=FACTOR",
        rich_help_panel=POCKET_PANEL,
    ),
]
Sheets = Annotated[float, contact_sheet_option(rich_help_panel=POCKET_PANEL)]

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of captioned videos, including subfolders: NAME.txt next to NAME.mp4, or a CSV file with "
        "columns path,text (or video,caption), named captions.csv if there are several.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Size of the clips: WIDTHxHEIGHT, or a name such as 240p. Default: the model's.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
Fps = Annotated[
    int | None, typer.Option(help="Frame rate of the clips. Default: the model's.", rich_help_panel=FINETUNE_PANEL)
]
Chunk = Annotated[
    int | None,
    typer.Option(min=1, help="Chunk size in latent frames. Default: the model's.", rich_help_panel=FINETUNE_PANEL),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="bf16: mixed precision with float32 weights; fp32: float32 throughout. Default: bf16; fp32 for pocket on "
        "CPUs without native bfloat16."
    ),
]
LoraRank = Annotated[
    int,
    typer.Option(
        min=0,
        max=4096,
        help="Train low-rank adapters (LoRA) of this rank, for `generate --lora`; 0: train all weights.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
GradientCheckpointing = Annotated[
    bool,
    typer.Option(
        help="Recompute blocks in the backward pass to save memory.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
GradientAccumulation = Annotated[
    int,
    typer.Option(min=1, max=MOST_BATCH, help="Batches per optimizer step.", rich_help_panel=FINETUNE_PANEL),
]
Warmup = Annotated[
    int, typer.Option(min=1, max=MOST_STEPS, help="Warm-up steps of the learning rate.", rich_help_panel=FINETUNE_PANEL)
]
CheckpointEvery = Annotated[
    int,
    typer.Option(
        min=1,
        max=MOST_STEPS,
        help="Steps between checkpoints, validations and exports.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
ValidationVideos = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Videos for validation. Default: one in twenty, if there are at least ten.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
Score = Annotated[
    float,
    typer.Option(
        callback=check_finite,
        help="Aesthetic score to append to captions that have none; 0: do not append.",
        rich_help_panel=FINETUNE_PANEL,
    ),
]
