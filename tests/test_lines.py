"""Every option of `generate` and `extend` on a command line is in the request that it becomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer
from support.command import pavdm
from support.requests import make_request

from pavdm_cli.app import app
from pavdm_cli.generation.request import Extension, Output
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.models.execution import ExecutionConfig

FOR_FILES = ("help", "quiet", "verbose", "config", "timeline")  # or for the command as a whole
OPTIONS = {
    "aesthetic_score": 5,
    "motion_score": 4,
    "camera_motion": "static",
    "text_device": "mps",
    "fp32_timesteps": True,
}

WAN = {"negative_prompt": "blurry", "shift": 4.0, "context_noise": 20.0}

# Nothing here is what it is by default.
LINE = (
    "--model opensora-v1.2 --seed 7 --method rn --steps 6 --window 10 --chunk 2 --context 0 --guidance 3 --size 144p "
    "--solver unipc "
    "--aspect 9:16 --device cpu --threads 2 --aesthetic-score 5 --motion-score 4 --camera-motion static --text-device "
    "mps --fp32-timesteps --no-reencode --edit-ratio 0.5 --precision fp32 --attention sdpa --context-cache reuse "
    "--cuda-graphs off --overlap-decode off --offload model --vae-tiling on --vae-batch-size 2 "
    "--cfg-batching sequential --shard-weights off --output v.mkv --crf 20 --force"
)
OUTPUT = Output(path=Path("v.mkv"), crf=20, force=True, ffmpeg="its ffmpeg")
ALL = make_request(
    "a fox", size=(256, 144), model="opensora-v1.2", seed=7, method="rn", steps=6, window=10, chunk=2, context=0,
    guidance=3, device="cpu", threads=2, reencode=False, edit_ratio=0.5, precision="fp32", solver="unipc",
    attention="sdpa", context_cache="reuse", cuda_graphs="off", overlap_decode="off", offload="model", vae_tiling="on",
    vae_batch_size=2, cfg_batching="sequential", shard_weights="off", output=OUTPUT, options=OPTIONS,
)  # fmt: skip
SHORT = make_request("a fox", seed=7, output=Output(ffmpeg="its ffmpeg"))
INPUT = Extension(Path("v.mp4"))
LONGER = replace(SHORT, prompt="", output=replace(SHORT.output, crf=16), extension=INPUT)


GENERATED = [
    (
        f"{LINE} --frames 9 --fps 12 --image p.png --encoder h264_nvenc",
        replace(ALL, frames=9, fps=12, image=Path("p.png"), output=replace(OUTPUT, encoder="h264_nvenc")),
        (False, False, 1),
    ),
    ("--seed 7 --seconds 3 --json -n 3", replace(SHORT, seconds=3), (True, False, 3)),
    ("--seed 7 --compile --plan", replace(SHORT, execution=ExecutionConfig(compile=True)), (False, True, 1)),
    ("--seed 7 --warmup 2", replace(SHORT, warmup=2), (False, False, 1)),
    ("--seed 7 --loop", replace(SHORT, loop=True), (False, False, 1)),
    ("--seed 7 --context 2 --sink 1", replace(SHORT, context=2, sink=1), (False, False, 1)),
    ("--seed 7 --at 2s fox --blend 1", replace(SHORT, timeline=(PromptChange(2, "fox"),), blend=1), (False, False, 1)),
    (
        "--seed 7 -o - --stream-format y4m",
        replace(SHORT, output=replace(SHORT.output, path=Path("-"), stream_format="y4m")),
        (False, False, 1),
    ),
    (
        "--seed 7 --scale 2 --scale-filter nearest",
        replace(SHORT, output=replace(SHORT.output, scale=2, scale_filter="nearest")),
        (False, False, 1),
    ),
    (
        "--seed 7 --context-cache recompute",
        replace(SHORT, execution=ExecutionConfig(context_cache="recompute")),
        (False, False, 1),
    ),
    ("--seed 7 --reencode", replace(SHORT, reencode=True), (False, False, 1)),
    ("--seed 7 --keep-state", replace(SHORT, output=replace(SHORT.output, keep_state=True)), (False, False, 1)),
    (
        "--seed 7 --lora a.safetensors:0.5 --lora b.safetensors",
        replace(SHORT, lora=("a.safetensors:0.5", "b.safetensors")),
        (False, False, 1),
    ),
    (
        "--seed 7 --method windows --stride 3 --ramp-up full",
        replace(SHORT, method="windows", stride=3, ramp_up="full"),
        (False, False, 1),
    ),
    (
        "--seed 7 --model wan2.1-t2v-14b --negative-prompt blurry --shift 4 --context-noise 20",
        replace(SHORT, model="wan2.1-t2v-14b", options=WAN),
        (False, False, 1),
    ),
]
EXTENDED = [
    (
        f"{LINE} --prompt fox --frames 9 --start noised --only-new --audio drop",
        replace(ALL, prompt="fox", frames=9, extension=replace(INPUT, start="noised", only_new=True, audio="drop")),
        (False, False),
    ),
    (
        "--seed 7 --keep-state",
        replace(LONGER, output=replace(LONGER.output, keep_state=True)),
        (False, False),
    ),
    ("--seed 7 --seconds 3 --json", replace(LONGER, seconds=3), (True, False)),
    ("--seed 7 --fps 8", replace(LONGER, fps=8), (False, False)),
    ("--seed 7 --context 2 --sink 1", replace(LONGER, context=2, sink=1), (False, False)),
    ("--seed 7 --at 2s fox --blend 1", replace(LONGER, timeline=(PromptChange(2, "fox"),), blend=1), (False, False)),
    ("--seed 7 --compile --plan", replace(LONGER, execution=ExecutionConfig(compile=True)), (False, True)),
    (
        "--seed 7 --vae-tiling off --cfg-batching sequential",
        replace(LONGER, execution=ExecutionConfig(vae_tiling="off", cfg_batching="sequential")),
        (False, False),
    ),
    ("--seed 7 --reencode", replace(LONGER, reencode=True), (False, False)),
    ("--seed 7 --keep-state", replace(LONGER, output=replace(LONGER.output, keep_state=True)), (False, False)),
    ("--seed 7 --lora a.safetensors", replace(LONGER, lora=("a.safetensors",)), (False, False)),
    (
        "--seed 7 --stride 3 --method windows --ramp-up full",
        replace(LONGER, method="windows", stride=3, ramp_up="full"),
        (False, False),
    ),
    (
        "--seed 7 --model wan2.1-t2v-14b --negative-prompt blurry --shift 4 --context-noise 20",
        replace(LONGER, model="wan2.1-t2v-14b", options=WAN),
        (False, False),
    ),
]
COMMANDS = (("generate", "a fox", "generate_videos", GENERATED), ("extend", "v.mp4", "extend_video", EXTENDED))


@pytest.mark.parametrize(
    ("command", "first", "does", "line", "request_", "how"),
    [(*one[:3], *row) for one in COMMANDS for row in one[3]],
)
def test_what_a_line_says_is_in_its_request(command, first, does, line, request_, how, monkeypatch):
    asked: list[object] = []
    monkeypatch.setattr(f"pavdm_cli.commands.{command}.{does}", lambda *given: asked.extend(given))
    monkeypatch.setenv("PAVDM_FFMPEG", "its ffmpeg")
    assert pavdm(command, first, *line.split()) == (0, "", "")
    assert asked[:-1] == [request_, *how]  # the last argument is the source of each option


@pytest.mark.parametrize(("command", "rows"), [(one[0], one[3]) for one in COMMANDS])
def test_every_option_is_on_one_of_those_lines(command, rows):
    said = {word for line, *_ in rows for word in line.split()}
    group = typer.main.get_command(app)
    options = [option for option in group.commands[command].params if option.param_type_name == "option"]
    assert len(options) > 30
    for option in options:
        assert option.name in FOR_FILES or said & {*option.opts}, option.name
        assert not option.secondary_opts or said & {*option.secondary_opts}, option.name
