"""A batch on a Ray cluster of local nodes: a killed worker and a removed node cost no frame and change no byte."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import QUICK, pavdm
from support.objects import install
from support.processes import start, wait_for_signals

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]

PROMPT = "a red ball over green hills at noon"
NAME = "0001-a-red-ball-over-green-hills-at-noon-0.mp4"
FRAMES = 400
PATIENCE = 200.0  # seconds
# Deaths are noticed within seconds instead of half a minute, and a busy machine is not taken for one without memory.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_memory_monitor_refresh_ms": "0",
}
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

memory = {"object_store_memory": 80 << 20, "memory": 8 << 30}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
nodes = [cluster.add_node(num_cpus=1, **memory)]
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "add\\n":
        nodes.append(cluster.add_node(num_cpus=1, **memory))
    else:
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class LocalCluster:
    """A head without cores and nodes of one core each, kept by another process."""

    def __init__(self, environment: dict[str, str]) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        for _ in range(3):  # Ray gives its processes half a minute to start, which a busy machine may exceed
            self._process = subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment, text=True, **pipes)
            if address := self._read():
                break
            self.close()
        self.address = address
        assert address

    def tell(self, command: str) -> None:
        """Add a node, or remove the oldest one as a loss of power would."""
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return os.environ | SETTINGS | {"PYTHONPATH": install(tmp_path_factory.mktemp("packages"))}


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[LocalCluster]:
    local = LocalCluster(environment)
    yield local
    local.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("expected") / "v.mp4"
    assert pavdm("generate", PROMPT, "--seed", 0, "--frames", FRAMES, *QUICK, "-o", path).code == 0
    return path.read_bytes()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def attempts(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob(".queue/attempts/*.json"))
    return [json.loads(text) for file in files if (text := file.read_text())]


def begin(folder: str, path: Path, cluster: LocalCluster, environment: dict[str, str]) -> subprocess.Popen[str]:
    (path / "jobs.txt").write_text(PROMPT)
    words = ("batch", "jobs.txt", "-d", folder, "--engine", "ray", "--frames", FRAMES, *QUICK)
    return start(*words, cwd=path, env=environment | {"RAY_ADDRESS": cluster.address})


@pytest.mark.integration
def test_a_killed_worker_and_a_removed_node_change_no_byte(
    cluster: LocalCluster, environment: dict[str, str], expected: bytes, tmp_path: Path
) -> None:
    bucket = tmp_path / "bucket"
    process = begin(f"objects://{bucket}", tmp_path, cluster, environment)
    state = str(bucket / NAME.replace(".mp4", ".partial.mp4") / "state.")
    wait_for(Path(f"{state}1").exists, process)
    os.kill(attempts(bucket)[0]["owner"]["pid"], signal.SIGKILL)
    # The next attempt has stored some frames: without any, its death would be the second failure to start.
    wait_for(lambda: any(attempt["number"] == 2 and attempt["frames"] for attempt in attempts(bucket)), process)
    cluster.tell("remove")
    cluster.tell("add")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out == f"objects://{bucket}/{NAME}\n"
    assert [file.read_bytes() for file in bucket.iterdir() if file.is_file()] == [expected]
    assert [(attempt["number"], attempt["state"]) for attempt in attempts(bucket)][2:] == [(3, "done")]
    assert [line for line in err.splitlines() if not is_our_line(line)] == []


def is_our_line(line: str) -> bool:
    """Whether a line of stderr is one of the batch's: Ray's are dated, or name a process in parentheses."""
    return line.startswith(("batch: ", "video ", NAME, "note: "))


@pytest.mark.long
def test_a_stop_lets_tasks_finish_their_chunk(
    cluster: LocalCluster, environment: dict[str, str], expected: bytes, tmp_path: Path
) -> None:
    process = begin("out", tmp_path, cluster, environment)
    wait_for_signals(process)
    wait_for(lambda: any((tmp_path / "out").glob("*.state")), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, err
    assert "1 job remaining, 0 failed" in err
    process = begin("out", tmp_path, cluster, environment)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, f"out/{NAME}\n"), err
    assert (tmp_path / "out" / NAME).read_bytes() == expected
