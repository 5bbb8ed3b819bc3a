"""The option that a wrong name stands for: a name that other programs use, or a misspelled one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Names that other programs use, under the option of pavdm.
FOREIGN_NAMES = {
    "aspect": "aspect-ratio, ratio",
    "at": "prompt-at, schedule, prompts",
    "cfg-batching": "batch-cfg",
    "compile": "torch-compile",
    "count": "num-videos, num-samples, n-samples, num-images, num-videos-per-prompt, batch-size, repeat",
    "crf": "quality",
    "fps": "frame-rate, framerate, rate",
    "force": "overwrite, yes",
    "frames": "num-frames, n-frames, nframes, frame-num, frame-count, number-of-frames, video-frames",
    "guidance": "cfg, cfg-scale, guidance-scale, guide-scale, sample-guide-scale, strength",
    "image": "init-image, input-image, start-image, image-path, first-frame, img",
    "lora": "lora-path, lora-weights, lora-scale, loras",
    "model": "model-id, model-path, model-name, ckpt, ckpt-dir, ckpt-path, checkpoint, pretrained-model, weights",
    "negative-prompt": "neg-prompt, n-prompt, negative, uncond",
    "offload": "offload-model, cpu-offload, model-cpu-offload, enable-model-cpu-offload, lowvram, low-vram",
    "output": "out, out-file, outfile, output-file, output-path, save-file, save-path, save-name",
    "output-dir": "outdir, out-dir, save-dir, output-folder, dir, folder",
    "plan": "dry-run, estimate, simulate",
    "precision": "dtype, torch-dtype, half, fp16, bf16",
    "scale": "upscale, enlarge, zoom",
    "seconds": "duration, length, time, len, video-length, video-duration",
    "seed": "random-seed, base-seed, generator, noise-seed",
    "shift": "flow-shift, sample-shift",
    "size": "width, height, resolution, res, dimensions, image-size, video-size, frame-size",
    "solver": "sampler, scheduler, sample-solver, sampling-method",
    "steps": "num-inference-steps, inference-steps, num-steps, num-sampling-steps, sampling-steps, sample-steps, "
    "infer-steps, ddim-steps, denoising-steps",
    "threads": "num-threads, cpus, cpu-threads",
    "vae-tiling": "tiling, tiled-vae, enable-vae-tiling",
    "verbose": "debug",
    "quiet": "silent",
}
OWN_NAMES = {foreign: own for own, names in FOREIGN_NAMES.items() for foreign in names.split(", ")}


def nearest_option(word: object, names: Iterable[str]) -> str:
    """The option in `names` that a wrong name stands for, or "" if there is none; - and _ are the same."""
    plain, options = _plain(str(word)[:100]), {_plain(name): name for name in map(str, names)}
    own = OWN_NAMES.get(plain, "")
    close = [own] if own in options else get_close_matches(plain, options, n=1, cutoff=0.6)
    return options[close[0]] if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
