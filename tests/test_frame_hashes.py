"""Every method, model and start reproduces the frames that were recorded on this machine.

SHA-256 of the latents that are decoded and of the frames that are encoded, for some twenty commands, by machine. After
an intended change of frames, record them again and say why in the commit: `python tests/test_frame_hashes.py --record`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import conftest  # noqa: F401  # one thread, as under pytest

from support import clips, published
from support.command import pavdm

from pavdm_cli.bench import env
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.sampling.loop import SampledChunk
from pavdm_cli.video.write import segmented

pytestmark = pytest.mark.integration

RECORDED = Path(__file__).parent / "golden" / "frame_hashes.json"
SCENE = "a red ball bouncing over a meadow at noon"
SAMPLED = ("--seed", 7, "--device", "cpu", "--threads", 1)
STARTED = ("generate", SCENE, "--frames", 20, "-o", "v.mp4", *SAMPLED)
POCKET = (*STARTED, "--warmup", 1)
LARGE = ("--size", "192x128", "--fps", 16)
EXTENDED = ("--frames", 8, "-o", "w.mp4", *SAMPLED)
EXTEND = ("extend", "clip.mp4", "--prompt", SCENE, *EXTENDED)
TINY = ("--model", "tiny", "--size", "72x64", "--steps", 6, *SAMPLED)
OPEN_SORA = ("generate", "a red balloon drifts over green hills", *TINY, "-o", "v.mp4")
Command = tuple[object, ...]
COMMANDS: dict[str, tuple[Command, ...]] = {
    "pocket pa": (POCKET,),
    "pocket rn": ((*POCKET, "--method", "rn"),),
    "pocket rw": ((*POCKET, "--method", "rw"),),
    "pocket fifo": ((*POCKET, "--method", "fifo"),),
    "pocket one clip": ((*POCKET, "--method", "rn", "--context", 0, "--warmup", 0),),  # ordinary diffusion
    "pocket rn re-encoded": ((*POCKET, "--method", "rn", "--reencode"),),
    "pocket rn edited": ((*POCKET, "--method", "rn", "--edit-ratio", 0.5),),
    "pocket default warm-up": (("generate", SCENE, "--frames", 3, "-o", "v.mp4", *SAMPLED),),
    "pocket bf16": ((*POCKET, "--precision", "bf16"),),
    "pocket recomputed context": ((*POCKET, "--context-cache", "recompute"),),
    "pocket without context": ((*POCKET, "--context", 0),),
    "pocket guided by two passes": ((*POCKET, "--guidance", 3),),
    "pocket unguided": ((*POCKET, "--guidance", 1),),
    "pocket 24 steps": ((*POCKET, "--steps", 24),),
    "pocket window 6 chunk 1": ((*POCKET, "--window", 6, "--chunk", 1),),
    "pocket chunk widened": ((*POCKET, "--steps", 4, "--window", 12, "--chunk", 1),),
    "pocket scale 1": ((*POCKET, "--scale", 1),),
    "pocket scale 3 nearest": ((*POCKET, "--scale", 3, "--scale-filter", "nearest"),),
    "pocket large and fast": ((*POCKET, *LARGE),),
    "pocket large extends its own video": ((*POCKET, *LARGE), ("extend", "v.mp4", *EXTENDED, "--size", "192x128")),
    "pocket partial prompt": (("generate", "a boat", "--frames", 8, "-o", "v.mp4", *SAMPLED),),
    "pocket image": ((*STARTED, "--image", "image.png"),),
    "pocket extends a clip": (EXTEND,),
    "pocket extends a noised clip": ((*EXTEND, "--start", "noised"),),
    "pocket extends its own video": (POCKET, ("extend", "v.mp4", *EXTENDED)),
    "Open-Sora pa": ((*OPEN_SORA, "--frames", 20),),
    "Open-Sora rn": ((*OPEN_SORA, "--frames", 60, "--method", "rn", "--window", 10),),
    "Open-Sora image": ((*OPEN_SORA, "--frames", 20, "--image", "image.png"),),
    "Open-Sora extends a clip": (("extend", "clip.mp4", "--prompt", SCENE, *TINY, "--frames", 4, "-o", "w.mp4"),),
}


class Digest:
    """SHA-256 of a sequence of arrays, however they were grouped, and their number."""

    def __init__(self) -> None:
        self._hash, self._count = hashlib.sha256(), 0

    def add(self, array: np.ndarray) -> None:
        """Append one array: its shape, type and bytes."""
        self._count += 1
        self._hash.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())

    def __str__(self) -> str:
        return f"{self._count} {self._hash.hexdigest()}"


def watch(patch: pytest.MonkeyPatch) -> dict[str, Digest]:
    """Digests of all latents that are decoded into the output, and all frames that reach its encoder, from now on."""
    digests = {"latents": Digest(), "frames": Digest()}
    decoded, encode_frame = pipeline.decode_chunks, segmented.SegmentedEncoder.encode

    def decode(job: Any, runs: Iterator[SampledChunk], *rest: Any) -> Iterator[RenderedChunk]:
        return decoded(job, add_latents(digests["latents"], runs), *rest)

    def encode_and_add(encoder: segmented.SegmentedEncoder, frame: np.ndarray | av.VideoFrame, time: int) -> None:
        digests["frames"].add(frame.to_ndarray() if isinstance(frame, av.VideoFrame) else frame)
        encode_frame(encoder, frame, time)

    patch.setattr(pipeline, "decode_chunks", decode)
    patch.setattr(segmented.SegmentedEncoder, "encode", encode_and_add)
    return digests


def add_latents(digest: Digest, runs: Iterator[SampledChunk]) -> Iterator[SampledChunk]:
    """The chunks unchanged, each latent added to the digest."""
    for run in runs:
        for latent in run.latents[0]:
            digest.add(latent.numpy())
        yield run


def measure(commands: tuple[Command, ...], folder: Path) -> dict[str, str]:
    """The digests that the commands give in a folder prepared by `prepare`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        digests = watch(patch)
        for command in commands:
            result = pavdm(*command, "--force")
            assert result.code == 0, result.err
    return {name: str(digest) for name, digest in digests.items()}


def prepare(folder: Path) -> Path:
    """Write the inputs: a clip of 51 frames, an image, and an Open-Sora checkpoint."""
    gradient = np.stack(np.meshgrid(range(0, 192, 2), range(0, 128, 2)), -1)  # (H, W, 2)
    frames = [np.dstack([gradient, np.full((64, 96), 40 + 4 * k)]).astype(np.uint8) for k in range(51)]
    clips.make(folder / "clip.mp4", frames)
    Image.fromarray(clips.corners(64, 96)).save(folder / "image.png")
    published.write(folder / "tiny")
    return folder


def machine() -> str:
    """What the last bits depend on: processor, PyTorch and its threads, PyAV (which scales and converts)."""
    values = env.environment()
    processor = " ".join(filter(None, (values["processor"], values["processor_model"])))
    versions = f"torch {values['torch']}, av {av.__version__}"
    return f"{processor}, {values['instruction_set']}, {values['system']}, {versions}, threads {values['threads']}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("name", COMMANDS)
def test_frames_are_those_recorded_on_this_machine(name: str, inputs: Path) -> None:
    recorded = json.loads(RECORDED.read_text()).get(machine(), {})
    if name not in recorded:
        pytest.skip(f"not recorded for {machine()}: python tests/{Path(__file__).name} --record")
    assert measure(COMMANDS[name], inputs) == recorded[name], "record again if a change of frames is intended"


def record() -> None:
    """Add this machine's digests to the stored ones, in place of its earlier ones."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare(Path(temporary))
        measured = {name: measure(commands, folder) for name, commands in COMMANDS.items()}
    stored = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    RECORDED.write_text(json.dumps(stored | {machine(): measured}, indent=1) + os.linesep)


if __name__ == "__main__":
    sys.exit(record() if sys.argv[1:] == ["--record"] else f"usage: python {sys.argv[0]} --record")
