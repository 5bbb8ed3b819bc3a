"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from pavdm_cli.errors import OutputError
from pavdm_cli.hub.atomic import atomic_write


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_weights_get_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    (tmp_path / "weights.safetensors.tmp").touch(0o600)  # of a killed process
    try:
        with atomic_write(tmp_path / "weights.safetensors") as temporary:
            save_file({"a": torch.zeros(2)}, temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~umask


def write_half(path):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OutputError, match="cannot write"):
        write_half(path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(OutputError, match="cannot write"), atomic_write(tmp_path / "missing" / "file"):
        pass
