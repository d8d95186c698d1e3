"""workers/scorers.py on a real cluster of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCORERS = Path(__file__).resolve().parents[1] / "workers" / "scorers.py"
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
SMALL = ["--object-store-memory=100000000", "--include-log-monitor=false"]
# What this file starts answers to nobody else, and does not wait long for a head that
# has gone.
ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
}
# Waits for a number of scorers' nodes, and prints the environment of a task on one.
PROBE = """
import os, sys, time
import ray

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    nodes = [n for n in ray.nodes() if n["Alive"] and "scorer" in n["Resources"]]
    if len(nodes) == int(sys.argv[2]):
        break
    time.sleep(0.1)
print([n["Resources"]["CPU"] for n in nodes])
if nodes:
    path = ray.remote(lambda: sys.path).options(resources={"scorer": 1})
    print(sys.argv[3] in ray.get(path.remote()))
"""


@contextlib.contextmanager
def started(command: list[str]) -> Generator[subprocess.Popen[str]]:
    """Yields a process in a group of its own, all of which ends with it."""
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Returns the lines up to one with a text."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"no {text!r} in:\n{''.join(lines)}")


def probe(address: str, num_nodes: int, folder: str) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", PROBE, address, str(num_nodes), folder],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.fixture
def folder() -> Generator[str]:
    """A folder with a name that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as name:
        yield name
        shutil.rmtree(name, ignore_errors=True)  # what was killed may still write
        Path(name).mkdir()


@pytest.fixture
def head(folder: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A head without cores, and its address."""
    port = free_port()
    options = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
    options += [f"--temp-dir={folder}/h", "--node-ip-address=127.0.0.1"]
    with started([*RAY, *options, *SMALL]) as process:
        wait_for(process, "block forever")
        yield process, f"127.0.0.1:{port}"


@contextlib.contextmanager
def joined(address: str, folder: str) -> Generator[subprocess.Popen[str]]:
    """Yields the worker once its node has joined."""
    options = ["--python-path", folder, "--", f"--temp-dir={folder}/n", *SMALL]
    options += ["--num-cpus=2", "--num-gpus=0", '--resources={"scorer": 1}']
    with started([sys.executable, str(SCORERS), "--address", address, *options]) as it:
        wait_for(it, "block forever")
        try:
            yield it
        finally:
            it.terminate()  # the node is in a group of its own
            it.communicate(timeout=60)


def test_scorers_join_a_cluster_and_leave_it_on_sigterm(
    head: tuple[subprocess.Popen[str], str], folder: str
) -> None:
    _, address = head
    with joined(address, folder) as process:
        assert probe(address, 1, folder) == ["[2.0]", "True"]

        process.terminate()
        out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert out.endswith("left the cluster\n")
    assert probe(address, 0, folder) == ["[]"]


def test_scorers_fail_when_the_cluster_goes_away(
    head: tuple[subprocess.Popen[str], str], folder: str
) -> None:
    leader, address = head
    with joined(address, folder) as process:
        os.killpg(leader.pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=100)

    assert process.returncode == 1
    assert out.splitlines()[-1].startswith(
        f"scorers.py: the cluster at {address} could not be joined, or went away: "
    )
