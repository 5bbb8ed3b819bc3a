"""The code uses the field's terms: private words for standard concepts do not come back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
# Folders and files that are checked. The aim is the whole tree: add a folder as soon as it is clean.
CHECKED = (
    "benchmarks",
    "kernels",
    "pavdm_cli/attention",
    "pavdm_cli/batch",
    "pavdm_cli/bench",
    "pavdm_cli/commands",
    "pavdm_cli/evaluation",
    "pavdm_cli/generation",
    "pavdm_cli/hub",
    "pavdm_cli/models",
    "pavdm_cli/pocket_world",
    "pavdm_cli/runtime",
    "pavdm_cli/sampling",
    "pavdm_cli/training",
    "pavdm_cli/video",
    *(f"pavdm_cli/{name}.py" for name in ("__init__", "__main__", "api", "app", "errors", "ui")),
)
SOURCES = sorted(
    path for name in CHECKED for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
)
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/GPU.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)

# A participle says nothing about the value that it names.
PARTICIPLES = {"found", "wanted", "shown", "made", "given", "asked", "kept", "held", "said", "told"}

# Words of a name (split at underscores and capitals), and the term to use instead.
NAME_WORDS = {
    "remember": "prefill",
    "remembering": "kv_cache",
    "recall": "prefill",
    "turns": "rope",
    "unfused": "reference",
    "picked": "gathered",
    "raised": "one_plus",
    "summed": "gathered",
    "walk": "denoise",
    "taught": "distilled",
    "lesson": "distillation",
    "teaching": "distillation",
    "sketch": "meta_model",
    "imagined": "meta",
    "engine": "execution_config",
    "wording": "prompt_options",
    "beside": "prefetch, overlap_decode",
    "ahead": "prefetch",
    "arrive": "onload",
    "arriving": "onload",
    "guest": "offload",
    "visit": "offload",
    "visiting": "offload",
    "footage": "dataset",
    "judge": "validation",
    "wear": "noise_augmentation",
    "worn": "noise_augmentation",
    "forgetful": "gradient_checkpointing",
    "gentle": "adamw",
    "spread": "distributed",
    "among": "distributed",
    "recipe": "metadata, batch config",
    "codec": "vae",
    "anew": "without_cache",
    "stills": "image",
    "wordless": "null_tokens",
    "hasty": "force",
    "reckoned": "computed",
}

# Whole names that are common words with another meaning in the field.
NAMES = {
    "memory": "kv_cache; of RAM say what is stored there",
    "overlap": "context",
    "overlap_kv": "context_cache",
    "text_memory": "text_kv",
    "every": "modulation",
    "pick": "gather",
    "table": "modulation",
    "rotate": "apply_rope",
    "in_turn": "sequential_cfg",
    "advance": "Solver.step",
    "move_on": "shift_window",
    "made_up": "random_weights",
    "reading": "prompt_options",
    "settings": "generation_config",
    "job": "generation_config",
    "about": "metadata",
    "average": "ema",
    "placed": "sharded",
    "guided": "classifier_free_guidance, distilled_guidance",
    "references": "use_reference",
    "fused": "kernels_enabled",
    "as_written": "eager_block",
    "examples": "warmup_inputs",
    "across": "to_device_like",
    "held": "num_fixed",
    "remade": "num_renoised",
    "present": "active_chunks",
    "draw": "sample_noise",
    "till": "until",
    "one": "the element's own name",
}

# In docstrings, comments, messages, help and documents: pattern, and the term to use instead.
PROSE = {
    r"remember(s|ed|ing)?": "cache, prefill",
    r"recall(s|ed)?": "prefill",
    r"(overlap|text) memory": "KV cache of the context, of the text",
    r"rotary turns?": "rotary embedding",
    r"unfused": "reference",
    r"as (it is|they are) written": "eager, reference",
    r"taught|lessons?": "distilled, distillation",
    r"made[- ]up": "random weights",
    r"sketch(es|ed)?": "meta-device model",
    r"engines?": "execution options",
    r"wordings?": "prompt format",
    r"beside(s)?": "next to, in addition to, in a background thread",
    r"visit(s|ing|ed)?|guests?": "offload, onload",
    r"footage": "dataset",
    r"(judge|judged)": "validate",
    r"forgetful": "gradient checkpointing",
    r"codecs?": "VAE (of a model), encoder (of a file)",
    r"products?": "matmul",
    r"(frames?|chunks?|steps?|latents?) a (second|step|chunk|latent)": "per",
    r"back[- ]ends?": "backend",
    r"anew": "again",
    r"till": "until",
    r"reckon(s|ed)?": "compute",
    r"hasty": "force",
    r"whoever|somebody": "the user",
    r"goes on|go on": "continue",
    r"pictures?": "frame (of a video), image (of a file)",
    r"the dearest": "the most expensive",
    r"(passes|pass) (together|apart)": "batched, sequential",
}

# Deliberate uses: (file or folder, what is matched in lower case), and why.
EXCEPTIONS = {
    ("pavdm_cli/evaluation", "one"): "exactly one object",
    ("pavdm_cli/pocket_world", "one"): "not renamed yet",
    ("pavdm_cli/training", "one"): "not renamed yet",
    ("pavdm_cli/models/pocket", "one"): "not renamed yet",
    ("pavdm_cli/batch", "job"): "a job of a batch",
    ("pavdm_cli/commands/batch.py", "job"): "a job of a batch",
    ("pavdm_cli/commands/batch_jobs.py", "job"): "a job of a batch",
    ("pavdm_cli/commands/batch_view.py", "job"): "a job of a batch",
    ("pavdm_cli/api.py", "job"): "a job of a batch",
    ("pavdm_cli/commands/batch.py", "engine"): "the flag --engine",
    ("pavdm_cli/commands", "advance"): "advances a progress bar, as in rich",
    ("pavdm_cli/commands/evaluate.py", "references"): "reference videos",
    ("pavdm_cli/commands/evaluate.py", "table"): "a table of results",
    ("pavdm_cli/commands/info.py", "codecs"): "those of a video file",
    ("pavdm_cli/ui.py", "advance"): "advances a progress bar, as in rich",
    ("pavdm_cli/ui.py", "table"): "a table on the terminal",
    ("kernels/pavdm_kernels/modulate.py", "product"): "an element-wise product is meant",
    ("kernels/pavdm_kernels/qk_norm_rope.py", "product"): "a complex product is meant",
    ("kernels/pavdm_kernels/dot_product.py", "product"): "scaled dot-product attention is its name",
    ("pavdm_cli/attention/table.py", "table"): "the table of backends",
    ("pavdm_cli/evaluation/bars.py", "codec"): "names in stored rows",
    ("benchmarks/quality_table.py", "codec"): "names in stored rows",
    ("pavdm_cli/evaluation/ratchet.py", "codec"): "names in stored rows",
    ("docs/guide.md", "codecs"): "those of a video file",
    ("docs/decisions.md", "codec"): "Matroska's codec delay",
    ("pavdm_cli/video", "codec"): "audio and video codecs are meant",
    ("pavdm_cli/video", "codecs"): "audio and video codecs are meant",
}


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module defines: functions, classes, parameters, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


def name_words(name: str) -> list[str]:
    """`numFixed`, `NumFixed` and `num_fixed` are num, fixed."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def prose(source: str, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Docstrings, comments, and every other string of several words: messages and help."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value, node.lineno
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]


def wrong_names(tree: ast.AST, path: str = "") -> Iterator[str]:
    for name, line in {*defined_names(tree), (Path(path).stem, 1)}:
        plain = name.strip("_").lower()
        if plain in PARTICIPLES:
            yield f"{path}:{line}: {name}: say what the value is"
        for word in {plain} & NAMES.keys():
            yield from _unless_excepted(path, word, f"{path}:{line}: {name}: {NAMES[word]}")
        for word in NAME_WORDS.keys() & set(name_words(name)):
            yield from _unless_excepted(path, word, f"{path}:{line}: {name}: {NAME_WORDS[word]}")


PROSE_PATTERNS = [
    (re.compile(rf"(?<![\w`/.-])(?:{pattern})(?![\w`/])", re.IGNORECASE), term) for pattern, term in PROSE.items()
]


def wrong_prose(texts: Iterator[tuple[str, int]], path: str = "") -> Iterator[str]:
    lines = list(texts)
    whole = "\n".join(text for text, _ in lines)
    patterns = [(pattern, term) for pattern, term in PROSE_PATTERNS if pattern.search(whole)]  # few, if any
    for text, line in lines:
        for pattern, term in patterns:
            for match in pattern.finditer(text):
                yield from _unless_excepted(path, match[0].lower(), f"{path}:{line}: {match[0]!r}: {term}")


def _unless_excepted(path: str, word: str, complaint: str) -> Iterator[str]:
    places = {"*", path, *(parent.as_posix() for parent in PurePosixPath(path).parents)}
    if not {(place, word) for place in places} & EXCEPTIONS.keys():
        yield complaint


def wrong_words(path: Path) -> list[str]:
    source, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    tree = ast.parse(source)
    return sorted([*wrong_names(tree, name), *wrong_prose(prose(source, tree), name)])


def test_the_code_uses_the_standard_terms() -> None:
    assert [complaint for path in SOURCES for complaint in wrong_words(path)] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_use_the_standard_terms(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert list(wrong_prose(iter(zip(lines, range(1, len(lines) + 1), strict=True)), name)) == []


def test_private_words_are_noticed_wherever_they_are() -> None:
    code = '''
class TextMemoryWalk:
    """Goes on till somebody remembers; 8 frames a second."""
    def turnsTable(self, wanted):
        self.found = [kept for kept in wanted]  # made anew
        raise ValueError("no back end for these products")
'''
    tree = ast.parse(code)
    names = "\n".join(wrong_names(tree))
    assert all(f": {name}: " in names for name in ("TextMemoryWalk", "turnsTable", "wanted", "found", "kept"))
    text = "\n".join(wrong_prose(prose(code, tree)))
    words = ("Goes on", "till", "somebody", "remembers", "frames a second", "anew", "back end", "products")
    assert all(repr(word) in text for word in words)


def test_standard_terms_are_not_complained_about() -> None:
    code = '''
def apply_rope(x, cos_sin, kv_cache):
    """Rotate pairs in the next step; `frames a second` is quoted, productive and recalling are other words."""
    num_fixed = len(kv_cache)
    return num_fixed
'''
    tree = ast.parse(code)
    assert [*wrong_names(tree), *wrong_prose(prose(code, tree))] == []
