"""Weights, videos and rows of the study: each is made once, so that an interrupted study continues."""

from __future__ import annotations

import json
import lzma
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pavdm_cli.bench.env import environment
from pavdm_cli.evaluation.files import MeasureOptions, measure_file
from pavdm_cli.evaluation.prompt_spans import scene_of
from pavdm_cli.evaluation.results import ResultsFile
from pavdm_cli.evaluation.videos import VideoSet, render_videos
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.pipeline import Pixels
from pavdm_cli.generation.provenance import collect_metadata
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.write import encoder_options, scale_metadata
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE
from pavdm_cli.models.pocket.model import SPEC as POCKET
from pavdm_cli.pocket_world.captions import caption
from pavdm_cli.pocket_world.world import sample_scene
from pavdm_cli.runtime.untrusted import stored_values
from pavdm_cli.video import EncoderOptions, VideoWriter, open_video

from .arms import POCKET_FORMAT, REAL, Arm, config_of, frames_of, pocket_options, request_of

SCHEMA = "pavdm.study/1"
OUTPUT = Output(crf=8, scale=1)  # nearly lossless: metrics should measure the model, not the encoder
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """The training budget, the same for every method."""

    steps: int
    batch: int
    rate: float
    clips: int


@dataclass(frozen=True, slots=True)
class Study:
    """The settings of a study, which are stored in its folder and cannot change later."""

    folder: Path
    model: str
    seconds: float
    prompts: tuple[str, ...]  # the seed of each is its index, from first_seed
    first_seed: int
    weights: Mapping[str, Path | None]  # pocket's, by role: base, pa, rw; None: fine-tuned here, or unavailable
    budget: Budget
    threads: int = 1

    @property
    def is_pocket(self) -> bool:
        """Whether its scenes can be rendered, and its weights fine-tuned here."""
        return self.model == POCKET.name

    @property
    def seeds(self) -> dict[int, str]:
        """The prompt of every seed."""
        return dict(enumerate(self.prompts, self.first_seed))


def study_prompt(seed: int) -> str:
    """The caption of a seed's scene, with every word that ground truth needs: real and generated videos share it."""
    rng = random.Random(seed)
    while not scene_of(prompt := caption(sample_scene(seed), rng)):
        pass
    return prompt


def check_settings(study: Study) -> None:
    """Store the settings, or compare them with those in the folder. Exits if they differ.

    Weights that were not given before may be added, since no row depends on them.
    """
    path = study.folder / "study.json"
    digests = {role: file and checkpoint.digest(file) for role, file in study.weights.items()}
    values = {
        "model": study.model,
        "seconds": study.seconds,
        "prompts": list(study.prompts),
        "first_seed": study.first_seed,
        "weights": digests,
        "budget": asdict(study.budget),
    }
    if path.exists():
        before = json.loads(path.read_text())
        before["weights"] = {role: digest or digests[role] for role, digest in before["weights"].items()}
        if differences := [name for name in values if before.get(name) != values[name]]:
            sys.exit(f"{study.folder} holds a study with other {', '.join(differences)}: give another folder")
    text = json.dumps(values, indent=1)
    if not path.exists() or path.read_text() != text:  # other shards may be reading it
        path.write_text(text)


def fine_tune(study: Study, method: str, log: Log, *, is_sharded: bool = False) -> Path | None:
    """The denoiser of a method: the given one, or the base weights fine-tuned here; None without either.

    Exits if it is missing in a sharded study.
    """
    if (weights := study.weights[method]) or not study.weights["base"]:
        return weights
    folder = study.folder / f"finetune-{method}"
    marker = folder / "finished"
    if not marker.exists():
        if is_sharded:
            sys.exit(f"the shards need weights fine-tuned by {method}: first run --arms {method} without --shard")
        log(f"fine-tuning {method}: {study.budget}")
        subprocess.run([*fine_tune_command(study, method, folder)], check=True)
        marker.touch()
    return folder / DENOISER_FILE


def fine_tune_command(study: Study, method: str, folder: Path) -> list[str]:
    """The command, which continues from its own checkpoint."""
    budget = study.budget
    counts = {"steps": budget.steps, "batch-size": budget.batch, "learning-rate": budget.rate, "clips": budget.clips}
    options = {"output-dir": folder, "init": study.weights["base"], "method": method, "threads": study.threads}
    words = [word for name, value in (options | counts).items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "pavdm_cli", "train", "denoiser", "--device", "cpu", *words]


def model_of(study: Study, role: str, denoiser: Path | None) -> str:
    """The value of `--model`: for pocket a folder with its VAE and the denoiser."""
    if not study.is_pocket or role == "shipped":
        return study.model
    assert denoiser
    return str(pocket_folder(study.folder / "weights" / role, denoiser))


def pocket_folder(folder: Path, denoiser: Path) -> Path:
    """A folder of pocket's VAE and a denoiser, as `--model` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in ((VAE_FILE, POCKET.folder / VAE_FILE), (DENOISER_FILE, denoiser)):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(source.resolve())
    return folder


def distilled_guidance(denoiser: Path | None) -> float | None:
    """The guidance scale distilled into a denoiser, from its header; None: the model's default."""
    return None if denoiser is None else float(checkpoint.training_metadata(denoiser).get("guided", 1.0))


def run_arm(study: Study, arm: Arm, seeds: Sequence[int], rows: Path, log: Log) -> None:
    """Generate and measure the videos of an arm that have no row yet."""
    finished_keys = {(row["arm"], row["seed"]) for row in read_rows([rows])}
    missing = [seed for seed in seeds if (arm.name, seed) not in finished_keys]
    denoiser = study.weights[arm.weights] if study.is_pocket and arm.weights != "shipped" else None
    if not missing:
        return
    if study.is_pocket and arm.weights != "shipped" and denoiser is None:
        log(f"{arm.name}: no weights ({arm.weights})")
        return
    name = model_of(study, arm.weights, denoiser)
    requests = {seed: _request(study, arm, seed, name) for seed in missing}
    configs = {seed: config_of(request, distilled_guidance(denoiser)) for seed, request in requests.items()}
    model = pipeline.open_model(configs[missing[0]])
    for seed, config in configs.items():
        path = study.folder / "videos" / arm.name / f"{seed}.mp4"
        if not path.exists():
            encoding = encoder_options(config, OUTPUT)
            metadata = collect_metadata(config, model) | {"crf": OUTPUT.crf} | scale_metadata(encoding.scale)
            frames = frames_of(arm, requests[seed], config, model)
            write_video(path, frames, config.spec.fps, encoding, metadata)
        add_row(rows, arm.name, seed, path, {"settings": stored_values(config), "weights": model.digest})
        log(f"{arm.name} {seed}: {config.prompt}")


def _request(study: Study, arm: Arm, seed: int, name: str) -> Request:
    options = pocket_options(arm) if study.is_pocket else {}
    prompt, threads = study.seeds[seed], study.threads
    return request_of(arm, prompt, study.seconds, model=name, seed=seed, threads=threads, options=options)


def run_real(study: Study, seeds: Sequence[int], rows: Path, log: Log) -> None:
    """Render and measure the scenes that the prompts describe, for pocket."""
    finished_keys = {(row["arm"], row["seed"]) for row in read_rows([rows])}
    for seed in seeds:
        if (REAL, seed) in finished_keys or not study.is_pocket:
            continue
        assert study.seeds[seed] == study_prompt(seed)
        path = study.folder / "videos" / REAL / f"{seed}.mp4"
        request = Request("", **POCKET_FORMAT)
        (video,) = render_videos(VideoSet(range(seed, seed + 1), study.seconds, request=request))
        metadata = {"prompt": study.seeds[seed], "seed": seed, **rendered_metadata()}
        write_video(path, iter([video.frames]), request.spec.fps, EncoderOptions(OUTPUT.crf), metadata)
        add_row(rows, REAL, seed, path, {"settings": {}, "weights": "rendered"})
        log(f"{REAL} {seed}: {study.seeds[seed]}")


def rendered_metadata() -> dict[str, Any]:
    """Metadata with which a rendered video is measured like those of pocket: chunk boundaries and ground truth."""
    spec = POCKET.at(**POCKET_FORMAT)
    size = f"{spec.size[1]}x{spec.size[0]}"
    return {
        "model": spec.name,
        "method": "pa",
        "chunk": spec.chunk,
        "window": spec.window,
        "size": size,
        "fps": spec.fps,
    }


def write_video(
    path: Path, frames: Iterator[Pixels], fps: int, encoding: EncoderOptions, metadata: Mapping[str, Any]
) -> None:
    """Write a video, which gets its name once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(frames)
    with VideoWriter(path, first.shape[2], first.shape[1], fps, dict(metadata), encoding, True) as writer:
        writer.write(first)
        for pixels in frames:
            writer.write(pixels)
        writer.finish()


def add_row(rows: Path, arm: str, seed: int, path: Path, values: Mapping[str, Any], features: bool = True) -> None:
    """Measure a video and append its row; features: also of its clips, for distances."""
    measurement = measure_file(
        open_video(path), MeasureOptions(flow=True, features=features), ResultsFile(None), lambda count, name: None
    )
    row = {"schema": SCHEMA, **environment(), "arm": arm, "seed": seed, **values}
    measurement = replace(measurement, path=f"{arm}/{path.name}", features=measurement.features if features else [])
    drop_truncated_line(rows)
    with rows.open("a") as file:
        file.write(json.dumps(row | {"measurement": measurement.to_json()}) + "\n")


def drop_truncated_line(rows: Path) -> None:
    """Remove a truncated last line, so that the next row starts a new line."""
    text = rows.read_bytes() if rows.exists() else b""
    if text and not text.endswith(b"\n"):
        rows.write_bytes(text[: text.rfind(b"\n") + 1])


def read_rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """All rows, without a truncated last line."""
    rows = []
    for path in paths:
        for line in _read_text(path).splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def _read_text(path: Path) -> str:
    return lzma.decompress(path.read_bytes()).decode() if path.suffix == ".xz" else path.read_text()


def store_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as compressed JSON Lines, which `read_rows` reads."""
    path.write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), preset=9))
