"""workers/ holds entry points: they start things that live in the package."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from scored import NUM_EXAMPLES, write_config

from curator.models import ScoreTable

WORKERS = Path(__file__).resolve().parents[1] / "workers"
SCRIPTS = sorted(WORKERS.glob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True
    )


def test_there_are_workers() -> None:
    assert {"score.py", "scorers.py", "serve.py"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_worker_defines_no_class(script: Path) -> None:
    # A class of a script is pickled by reference to a module that other machines lack.
    nodes = ast.walk(ast.parse(script.read_text()))

    assert [node.name for node in nodes if isinstance(node, ast.ClassDef)] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_worker_explains_itself(script: Path) -> None:
    process = run(script, "--help")

    assert process.returncode == 0
    assert process.stdout.startswith(f"usage: {script.name}")


def test_package_imports_no_worker(repository: Path) -> None:
    users = {
        path
        for path in (repository / "curator").rglob("*.py")
        if "workers" in imported(path)
    }

    assert users == set()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A server of ids only, on a free port."""
    path = tmp_path / "server.toml"
    path.write_text(
        f"""
        [server]
        listen = "127.0.0.1:0"
        state_dir = "{tmp_path / "state"}"

        [pools.ids]
        format = "virtual"
        num_examples = 10
        """
    )
    return path


@pytest.mark.slow
def test_serve_stops_cleanly_on_sigterm(config: Path) -> None:
    command = [sys.executable, str(WORKERS / "serve.py"), str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "listening on 127.0.0.1:" in process.stdout.readline()

        os.kill(process.pid, signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)

    assert (process.returncode, rest.splitlines()[-1]) == (0, "stopped"), errors


@pytest.mark.slow
def test_serve_reports_a_wrong_configuration_in_one_line(config: Path) -> None:
    config.write_text("[server]\nlisten_on = 1\n")

    process = run(WORKERS / "serve.py", str(config))

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1
    assert "listen_on" in process.stderr


def test_serve_without_a_configuration_is_a_wrong_call() -> None:
    process = run(WORKERS / "serve.py")

    assert process.returncode == 2
    assert "CONFIG.toml" in process.stderr


@pytest.mark.slow
def test_score_writes_the_scores_of_a_pool(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--pool", "p", "--model", "classes", "--out", str(out), "--json")

    process = run(WORKERS / "score.py", str(write_config(tmp_path)), *options)

    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["num_scored"] == NUM_EXAMPLES
    assert ScoreTable(out).num_missing(NUM_EXAMPLES) == 0


@pytest.mark.slow
def test_score_ends_with_130_after_an_interrupt(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = str(write_config(tmp_path))
    options = ["--pool", "p", "--model", "gated", "--out", str(out)]
    options += ["--shard-size", "64"]
    with subprocess.Popen(
        [sys.executable, str(WORKERS / "score.py"), config, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "forward\n"

        os.kill(process.pid, signal.SIGINT)
        assert process.stderr.readline() == "\n"  # only now it reads on
        rest, errors = process.communicate("\n" * 100, timeout=60)

    assert process.returncode == 130, errors
    assert "186 are left: run the same command again" in rest


@pytest.mark.slow
def test_score_reports_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    options = ("--pool", "q", "--model", "classes", "--out", str(tmp_path / "out"))

    process = run(WORKERS / "score.py", str(write_config(tmp_path)), *options)

    assert process.returncode == 1
    assert process.stderr == "score.py: no pool 'q'. Known: ids, p\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--address"),
        (["--address", "head"], "expected HOST:PORT, such as 10.0.0.1:6379; got 'he"),
        (["--address", "head:70000"], "expected HOST:PORT"),
        (["--address", "h:1", "--num-cpus", "2"], "unrecognized arguments: --num-cpus"),
        (["--address", "h:1", "--python-path", "nowhere"], "no folder 'nowhere'"),
    ],
)
def test_a_wrong_call_of_scorers_exits_with_2(
    arguments: list[str], message: str
) -> None:
    process = run(WORKERS / "scorers.py", *arguments)

    assert process.returncode == 2
    assert message in process.stderr


def test_scorers_say_where_there_is_no_cluster() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{held.getsockname()[1]}"

        process = run(WORKERS / "scorers.py", "--address", address)

    assert process.returncode == 1
    assert process.stderr.startswith(f"scorers.py: no Ray cluster at {address}: ")
    assert len(process.stderr.splitlines()) == 1
