"""What a contributor can rely on when a model is added: defaults, recognition, and that nothing else knows a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_model.model import SPEC
from test_architecture import all_imports

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.recognize import recognize
from pavdm_cli.models.registry import specs
from pavdm_cli.models.spec import ModelSpec

PACKAGE = Path(__file__).parents[1] / "pavdm_cli"
NEW = replace(SPEC, name="new", architectures={"transformer": ("NewTransformer",), "vae": ("NewVAE",)})


def write(folder: Path, **architectures: str) -> Path:
    """A folder with a configuration per part."""
    for part, name in architectures.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps({"_class_name": name}))
    return folder


def test_only_pocket_and_its_network_are_imported_by_other_code():
    imports = {
        (module.split(".")[1], target.split(".")[2])
        for module, target, _ in all_imports()
        if target.startswith("pavdm_cli.models.") and module.startswith("pavdm_cli.")
        if module.split(".")[1] != "models" and (PACKAGE / "models" / target.split(".")[2]).is_dir()
    }
    pocket = {(unit, "pocket") for unit in ("commands", "evaluation", "training")}
    assert imports == pocket | {("bench", "stdit"), ("training", "stdit")}


@pytest.mark.parametrize("name", ["NewTransformer", "newtransformer"])
def test_an_architecture_is_recognized_in_either_case(tmp_path: Path, name: str):
    assert recognize(write(tmp_path, transformer=name), [*specs(), NEW]) == "new"


@pytest.mark.parametrize("known", [[*specs(), NEW], [NEW, *specs()]], ids=["last", "first"])
def test_a_foreign_part_is_named_wherever_the_model_is_listed(tmp_path: Path, known: list[ModelSpec]):
    write(tmp_path, transformer="NewTransformer", vae="OtherVAE")
    with pytest.raises(ModelError, match="vae has an unknown architecture: 'OtherVAE'"):
        recognize(tmp_path, known)


def test_a_spec_without_precisions_runs_in_float32():
    fields = {name: getattr(SPEC, name) for name in ("license", "folder", "size", "fps", "window", "chunk", "steps")}
    spec = ModelSpec(name="new", description="", trained_steps=6, guidance=1.0, method="pa", **fields)
    assert spec.precisions_on("cpu") == spec.precisions_on("cuda") == ("fp32",)
