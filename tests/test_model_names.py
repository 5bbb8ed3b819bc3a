"""A model is one folder and one line of the registry: no other code names one."""

from __future__ import annotations

import ast
import re

import pytest
from test_architecture import MODULES, executed, imports, tree

# Who may name a model: its folder and the network that two share, and what is listed here.
NAMES_A_MODEL = {
    "pavdm_cli.models.registry": "one line per model",
    "pavdm_cli.commands.train": "training tasks",
    "pavdm_cli.bench.released": "the baseline is a model's released code",
}
MODEL_FOLDERS = ("pavdm_cli.models.", "pavdm_cli.training.", "pavdm_cli.evaluation.", "pavdm_cli.pocket_world.")
MODEL_NAMES = re.compile(r"\b(pocket|opensora|open-sora|stdit|wan)\b", re.IGNORECASE)


def is_of_a_model(module: str) -> bool:
    """Whether a module belongs to one model, or to the training and evaluation of one."""
    folders = ("pocket", "opensora", "stdit", "wan")
    inside = any(f".{folder}." in f"{module}." for folder in folders)
    return module in NAMES_A_MODEL or inside or module.startswith(MODEL_FOLDERS[1:])


def model_names(module: ast.Module) -> list[int]:
    """Lines of code that import a model's folder or compare something with a model's name."""
    imported = [line for target, line in imports(module) if re.search(r"models\.(pocket|opensora|stdit|wan)\b", target)]
    compared = [node for node in executed(module) if isinstance(node, ast.Compare | ast.Dict | ast.Subscript)]
    texts = (
        (leaf.value, leaf.lineno) for node in compared for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)
    )
    named = [line for text, line in texts if isinstance(text, str) and MODEL_NAMES.fullmatch(text.split("-v")[0])]
    return sorted({*imported, *named})


def test_no_code_outside_a_models_folder_names_a_model():
    others = {module: tree(path) for module, path in MODULES.items() if not is_of_a_model(module)}
    assert {module: lines for module, code in others.items() if (lines := model_names(code))} == {}
    assert NAMES_A_MODEL.keys() <= MODULES.keys()


@pytest.mark.parametrize(
    "code",
    [
        'if spec.family == "pocket":\n    pass',
        'x = {"opensora": 1}',
        "from pavdm_cli.models.pocket.vae import PocketVAE",
        'y = table["opensora-v1.2"]',
    ],
)
def test_code_that_names_a_model_is_seen(code: str):
    assert model_names(ast.parse(code)) == [1]
