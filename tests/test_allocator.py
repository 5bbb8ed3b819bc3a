"""glibc keeps what is freed, so that large tensors are not mapped again at every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pavdm_cli.runtime import allocator

COUNT = """
import resource, torch
from pavdm_cli.runtime.allocator import keep_freed_memory
assert keep_freed_memory()
for _ in range(3):
    blocks = [torch.ones(10_000_000) for _ in range(4)]
    del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = [torch.ones(10_000_000) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets parameters of glibc's malloc")
def test_large_tensors_reuse_freed_memory():
    """160 MB in pages of 4 kB are 40,000 page faults, or a few dozen of huge pages."""
    run = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 10


def test_other_systems_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()
