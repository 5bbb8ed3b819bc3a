"""Hostile inputs, each a function of its number alone: mutated media, JSON, weights, tables, prompts and options."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

STRINGS = (
    *("", "a red ball", "-f", "--output=/etc/passwd", "../../x", "/etc/passwd", "\x1b[2J\x07", "\u202egpj.4pm", "a\nb"),
    *(
        "\x00",
        "\ud800",
        "\udcff",
        "😀" * 50,
        "x" * 9000,
        "$(id)`id`;'\"",
        "[/red]",
        "NaN",
        "1e999",
        "%s%n{0}",
        "\ufeff",
    ),
)
NUMBERS = (0, -1, 1, 2, 7, 255, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, True, False, None)
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000, '"\\ud800"', "{", "nul", "01")
FIELDS = (
    *("pavdm", "prompt", "seed", "frames", "fps", "model", "method", "steps", "window", "chunk", "context", "guidance"),
    *(
        "context_cache",
        "compile",
        "versions",
        "size",
        "source",
        "copied",
        "image",
        "crf",
        "start",
        "audio",
        "reencode",
    ),
)
SIZES = (
    *("hidden_size", "depth", "num_heads", "in_channels", "caption_channels", "model_max_length", "mlp_ratio"),
    *("patch_size", "pred_sigma", "qk_norm", "model_type", "architectures", "_class_name", "d_model", "num_layers"),
    *("d_ff", "d_kv", "vocab_size", "layer_norm_epsilon", "weight_map", "kind", "config", "samples"),
)
OPTIONS = (
    *("--seconds", "--frames", "--seed", "--steps", "--window", "--chunk", "--guidance", "--fps", "--size", "--aspect"),
    *(
        "--model",
        "--method",
        "--device",
        "--threads",
        "--crf",
        "--precision",
        "--attention",
        "--context-cache",
        "--image",
    ),
    *("--output", "--context", "--vae-tiling", "--compile", "--json", "--force", "--camera-motion", "--edit-ratio"),
)
VALUES = (
    *("0", "1", "2", "-1", "nan", "inf", "1e400", "9" * 30, "9" * 5000, "96x64", "0x0", "1x99999999999", "pa", "rn"),
    *(
        "fifo",
        "cpu",
        "cuda:99",
        "auto",
        "",
        "-",
        "--",
        "\x1b[2J",
        "\udcff",
        "../..",
        "/dev/zero",
        "/dev/null",
        ".",
        "a:b",
    ),
)


def value(draw: random.Random, depth: int = 0) -> Any:
    """A JSON value of any type."""
    kind = draw.randrange(8 if depth < 4 else 5)
    if kind < 2:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice(STRINGS)
    if kind == 4:
        return draw.uniform(-1e6, 1e6)
    if kind == 5:
        return [value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice((*FIELDS, *SIZES, *STRINGS)): value(draw, depth + 1) for _ in range(draw.randrange(5))}


def document(draw: random.Random, names: tuple[str, ...], valid: dict[str, Any]) -> str:
    """A JSON text near a valid object: some fields of other types, at times broken as text."""
    changed = valid | {draw.choice(names): value(draw) for _ in range(draw.randrange(1, 4))}
    try:
        text = json.dumps(changed)
    except ValueError:  # a number of thousands of digits
        text = json.dumps(valid)
    if draw.random() < 0.3:
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(RAW) + text[place + draw.randrange(3) :]
    return text


def mutated(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """The bytes flipped, cut, repeated, zeroed, with large numbers written over, or spliced with those of another."""
    data = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        place, count = draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 8, 64, 500))
        kind = draw.randrange(7)
        if kind == 0:
            data[place : place + count] = draw.randbytes(count)
        elif kind == 1:
            del data[place : place + count]
        elif kind == 2:
            data[place:place] = data[place : place + count] * draw.randrange(1, 5)
        elif kind == 3:
            data[place : place + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\0\0\1"))
        elif kind == 4:
            start = draw.randrange(len(other) + 1)
            data[place : place + count] = other[start : start + count]
        elif kind == 5:
            data[:200] = mutated_head(draw, data[:200])
        elif draw.random() < 0.3:
            del data[place:]
        data = data or bytearray(b"\0")
    return bytes(data)


def mutated_head(draw: random.Random, head: bytearray) -> bytearray:
    """A header with single bits flipped, which most readers look at first."""
    for _ in range(draw.randrange(1, 8)):
        head[draw.randrange(len(head))] ^= 1 << draw.randrange(8)
    return head


def prompt(draw: random.Random) -> str:
    """Words, letters of all planes and hostile strings."""
    parts = (
        lambda: draw.choice(("a red ball", "two white boats", "at night", "the camera pans left", "green hills")),
        lambda: draw.choice(STRINGS),
        lambda: "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(20))),
        lambda: "".join(chr(draw.randrange(0x20, 0x250)) for _ in range(draw.randrange(80))),
    )
    return draw.choice((" ", ", ", "")).join(draw.choice(parts)() for _ in range(draw.randrange(1, 6)))


def options(draw: random.Random) -> list[str]:
    """Words of a command line."""
    words: list[str] = []
    for _ in range(draw.randrange(1, 5)):
        words += [draw.choice(OPTIONS), *([draw.choice(VALUES)] if draw.random() < 0.8 else [])]
    return [word.replace("\0", "") for word in words]


def header(draw: random.Random, valid: bytes) -> bytes:
    """A safetensors file with another header, or with mutated bytes."""
    if draw.random() < 0.5:
        return mutated(draw, valid, valid)
    length = int.from_bytes(valid[:8], "little")
    entries = json.loads(valid[8 : 8 + length])
    entry = draw.choice([*entries])
    text = document(draw, (entry, "dtype", "shape", "data_offsets", "__metadata__"), entries).encode()
    claimed = draw.choice((len(text), len(text), len(text), len(text) + 1, 2**63, 0))
    return claimed.to_bytes(8, "little") + text + valid[8 + length :]


Case = Callable[[random.Random, Path], None]  # feeds one input to a reader; may write below the folder given
