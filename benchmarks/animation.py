"""The README's animation: generates three clips and joins them side by side in docs/images/pocket.gif."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.video import EncoderOptions, FrameReader, VideoWriter, open_video
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.external import find_ffmpeg

GIF = Path(__file__).parents[1] / "docs" / "images" / "pocket.gif"
SECONDS, RATE, SCALE = "5", 16, 1
CLIPS = {  # prompt: seed
    "a red balloon drifting over green hills at sunset, the camera pans left": "3",
    "a yellow rubber duck bobbing on the sea at dawn": "8",
    "a purple butterfly hovering over snowy fields while it snows": "10",
}


def main() -> None:
    """Generate the clips one after another and write their frames side by side."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = [generate(Path(folder) / f"{number}.mkv", *clip) for number, clip in enumerate(CLIPS.items())]
    frames = np.concatenate(clips, axis=2)  # (n, H, 3 W, 3)
    encoding = EncoderOptions(ffmpeg=find_ffmpeg(), scale=Scale(SCALE, "lanczos"))  # ffmpeg: one palette for all frames
    GIF.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(GIF, frames.shape[2], frames.shape[1], RATE, {}, encoding, force=True) as writer:
        writer.write(frames)
        print(writer.finish())


def generate(path: Path, prompt: str, seed: str) -> NDArray[np.uint8]:  # (n, H, W, 3)
    """Frames of one clip at the model's own size."""
    options = ("--seed", seed, "--seconds", SECONDS, "--scale", "1", "--crf", "0", "-o", str(path))
    subprocess.run([sys.executable, "-m", "pavdm_cli", "generate", prompt, *options], check=True)
    return np.stack([frame for frame, _ in FrameReader(open_video(path))])


if __name__ == "__main__":
    main()
