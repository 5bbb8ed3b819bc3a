"""Feeds hostile inputs to readers in a process of its own: `hostile_worker.py FOLDER KIND:FIRST:COUNT ...`.

A crash, ten seconds of work, a minute of waiting and more than 2 GB end the process or are a failure; the last number
printed says at which input. Work is counted, not time, as other programs may have the cores.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import os
import random
import shlex
import signal
import sys
import traceback
from functools import cache
from pathlib import Path

from pavdm_cli.errors import PavdmError
from support import hostile

WORK, WAIT, BYTES = 10, 60, 2 << 30  # seconds of the processor, seconds, bytes
METADATA = {
    "pavdm": "1",
    "prompt": "a red ball",
    "seed": 1,
    "frames": 24,
    "fps": 8,
    "model": "pocket",
    "compile": False,
}
CONFIG = {"depth": 28, "hidden_size": 1152, "num_heads": 16, "model_type": "STDiT3", "d_model": 4096, "num_layers": 24}
ROW = {"kind": "throughput", "config": {"steps": 6}, "samples": {"steady_steps_s": [0.1, 0.1, 0.1]}}


@cache
def seeds(folder: Path, kind: str) -> list[Path]:
    """Small valid files of a kind, from which inputs are made."""
    return sorted((folder / "seeds" / kind).iterdir())


def written(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / "out" / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    return path


def near(draw: random.Random, folder: Path, kind: str) -> Path:
    """A mutated file."""
    first, second = draw.choice(seeds(folder, kind)), draw.choice(seeds(folder, kind))
    return written(folder, f"input{first.suffix}", hostile.mutated(draw, first.read_bytes(), second.read_bytes()))


def video(draw: random.Random, folder: Path) -> None:
    """Any video file."""
    from pavdm_cli.generation.metadata import valid_fields
    from pavdm_cli.video import FrameReader, open_video, read_metadata

    path = near(draw, folder, "video")
    with contextlib.suppress(PavdmError):
        valid_fields(read_metadata(path) or {})
    info = open_video(path)
    if draw.random() < 0.2:
        for number, _ in enumerate(FrameReader(info)):
            if number > 3:
                break


def image(draw: random.Random, folder: Path) -> None:
    """Any picture."""
    from pavdm_cli.video.io.image import read_image

    read_image(near(draw, folder, "image"))


def metadata(draw: random.Random, folder: Path) -> None:
    """What a video says of how it was made, and the command of `info`."""
    from pavdm_cli.commands.info import command
    from pavdm_cli.generation.metadata import valid_fields
    from pavdm_cli.runtime.printable import printable
    from pavdm_cli.runtime.untrusted import InvalidError, parse_json

    try:
        value = parse_json(hostile.document(draw, hostile.FIELDS, METADATA))
    except InvalidError as error:
        raise PavdmError(str(error)) from error
    fields, _ = valid_fields(value if isinstance(value, dict) else {})
    if "prompt" in fields:
        line = command(fields)
        assert line == printable(line)
        shlex.split(line)


def config(draw: random.Random, folder: Path) -> None:
    """A model's configuration."""
    from pavdm_cli.hub.json_file import read_json
    from pavdm_cli.models.opensora.config import parse_config
    from pavdm_cli.models.opensora.text_encoder import check_sizes, parameter_count

    path = written(folder, "config.json", hostile.document(draw, hostile.SIZES, CONFIG))
    config = read_json(path)
    with contextlib.suppress(PavdmError):
        parse_config(config)
    check_sizes(config)
    parameter_count(config)


def weights(draw: random.Random, folder: Path) -> None:
    """Weights, their index, and what is built from them."""
    from pavdm_cli.hub.checkpoint import locate_tensors, tensor_shapes
    from pavdm_cli.models.opensora.vae import infer_vae_config
    from pavdm_cli.models.pocket.checkpoint import load_vae

    valid = draw.choice(seeds(folder, "weights")).read_bytes()
    path = written(folder, "model.safetensors", hostile.header(draw, valid))
    index = folder / "out" / "model.safetensors.index.json"
    index.unlink(missing_ok=True)
    if draw.random() < 0.3:
        placed = {"weight_map": {"weight": "model.safetensors"}}
        index.write_text(hostile.document(draw, ("weight_map", "metadata"), placed))
    with contextlib.suppress(PavdmError):
        infer_vae_config(tensor_shapes(locate_tensors(path.parent)))
    load_vae(path)


def pickled(draw: random.Random, folder: Path) -> None:
    """Pickled weights."""
    from pavdm_cli.hub.convert import convert

    path = near(draw, folder, "pickled")
    try:
        convert(path.parent)
    finally:
        path.unlink()


def rows(draw: random.Random, folder: Path) -> None:
    """Rows of a benchmark."""
    from pavdm_cli.bench.compare import compare, lines

    summary_rows = [hostile.document(draw, ("kind", "config", "samples"), ROW) for _ in range(draw.randrange(1, 4))]
    path = written(folder, "rows.jsonl", "\n".join(summary_rows))
    lines(compare(path, path))


def captions(draw: random.Random, folder: Path) -> None:
    """A table of captions."""
    from pavdm_cli.training.finetune.dataset import find_captioned_videos

    rows = "\n".join(f"{draw.choice(hostile.STRINGS)},{hostile.prompt(draw)}" for _ in range(draw.randrange(5)))
    written(folder, "captions.csv", f"path,text\n{rows}")
    find_captioned_videos(folder / "out", bool)


def prompts(draw: random.Random, folder: Path) -> None:
    """A prompt, as both models read it."""
    from pavdm_cli.generation.checks import format_prompts
    from pavdm_cli.runtime.printable import printable, quote
    from pavdm_cli.runtime.validation import check_text
    from support.requests import make_request

    text = hostile.prompt(draw)
    assert printable(printable(text)) == printable(text)
    with contextlib.suppress(UnicodeEncodeError):  # surrogates that stand for no byte
        assert quote(text) == printable(quote(text))
    check_text("the prompt", text)
    with contextlib.suppress(PavdmError):
        format_prompts(make_request(text, model="pocket", seed=1))
    format_prompts(make_request(text, model="opensora-v1.2", seed=1))


def commands(draw: random.Random, folder: Path) -> None:
    """A whole command that does no slow work."""
    from support.command import pavdm

    verb = draw.choice(("generate", "extend", "info", "models show", "bench compare"))
    words = hostile.options(draw)
    if verb == "generate":
        words += ["--plan", "--", hostile.prompt(draw).replace("\0", "")]
    elif verb in ("extend", "info"):
        words = ["--plan", *words] if verb == "extend" else ["--json"] * draw.randrange(2)
        words += ["--", str(near(draw, folder, "video"))]
    elif verb == "bench compare":
        path = written(folder, "rows.jsonl", hostile.document(draw, ("kind", "config", "samples"), ROW))
        words = [str(path), str(path)]
    else:
        words = ["--", draw.choice(hostile.VALUES)]
    result = pavdm(*verb.split(), *words)
    assert result.code in (0, 1, 2, 3, 4, 5, 6), result
    assert "Traceback" not in result.err, result.err
    assert "a bug in pavdm" not in result.err, result.err


KINDS = {
    "video": video,
    "image": image,
    "metadata": metadata,
    "config": config,
    "weights": weights,
    "pickled": pickled,
    "rows": rows,
    "captions": captions,
    "prompts": prompts,
    "commands": commands,
}

MEDIA = ("pavdm_cli.generation.metadata", "pavdm_cli.video.io.image")
MODULES = {"video": MEDIA, "image": MEDIA}
REST = (
    "pavdm_cli.app",
    "pavdm_cli.generation.memory_plan",
    "pavdm_cli.bench.compare",
    "pavdm_cli.hub.convert",
    "pavdm_cli.generation.write",
)


def feed(folder: Path, kind: str, number: int) -> str:
    """Feed an input; what is wrong with how it was met, or nothing."""
    signal.setitimer(signal.ITIMER_PROF, WORK)
    faulthandler.dump_traceback_later(WAIT, exit=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            KINDS[kind](random.Random(f"{kind} {number}"), folder)
    except PavdmError as error:
        if "\n" in error.message or not 1 <= error.exit_code <= 6:
            return f"a message of several lines: {error.message!r}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    return "more than 2 GB" if resident() > BYTES else ""


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    """Feed the inputs of every kind that is named; print the number of each, and exit 1 at a failure."""
    folder, failed = Path(sys.argv[1]), 0
    os.chdir(folder / "cwd")
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # which then ends the process
    for kind, first, count in (word.split(":") for word in sys.argv[2:]):
        for module in MODULES.get(kind, REST):  # which may take long where other programs have the cores
            importlib.import_module(module)
        for number in range(int(first), int(first) + int(count)):
            print(kind, number, flush=True)
            if problem := feed(folder, kind, number):
                failed += 1
                print(f"FAILED {kind} {number}: {problem}", flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
