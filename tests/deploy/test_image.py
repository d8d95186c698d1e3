"""The Dockerfile: what it copies is there, and what runs is small and not root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import worlds
from dockerfile_parse import DockerfileParser
from worlds import served


@pytest.fixture(scope="module")
def stages(repository: Path) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, without the comments."""
    parser = DockerfileParser(str(repository / "deploy/Dockerfile"))
    found: list[list[tuple[str, str]]] = []
    for entry in parser.structure:
        if entry["instruction"] == "FROM":
            found.append([])
        if entry["instruction"] != "COMMENT":
            found[-1].append((entry["instruction"], entry["value"]))
    return found


def values(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in stage if name == instruction]


def copied(stage: list[tuple[str, str]]) -> list[str]:
    """What a stage copies from the checkout."""
    copies = [value.split() for value in values(stage, "COPY")]
    return [
        name for copy in copies if not copy[0].startswith("--") for name in copy[:-1]
    ]


def test_what_is_copied_is_in_the_checkout(stages, repository):
    names = [name for stage in stages for name in copied(stage)]

    assert [name for name in names if not (repository / name).exists()] == []
    assert {"curator", "workers", "pyproject.toml"} <= set(names)


def test_what_is_copied_is_not_ignored(stages, repository):
    lines = (repository / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert "*" in lines
    assert {name for stage in stages for name in copied(stage)} == kept


def test_the_wheel_is_built_elsewhere_and_no_compiler_is_installed(stages):
    assert len(stages) == 2
    assert values(stages[0], "FROM") == ["python:3.12-slim AS wheel"]
    assert values(stages[1], "FROM") == ["python:3.12-slim"]
    assert any("--from=wheel" in value for value in values(stages[1], "COPY"))
    (packages,) = [
        value for value in values(stages[1], "RUN") if "apt-get install" in value
    ]
    install = packages.partition("apt-get install")[2].partition("&&")[0]
    words = [word for word in install.split() if not word.startswith("-")]
    assert words == ["tini"]


def test_it_runs_as_a_user_of_its_own_by_number(stages):
    *_, user = values(stages[-1], "USER")

    assert user == "10001:10001"
    assert any("--uid 10001" in value for value in values(stages[-1], "RUN"))


def test_what_it_starts_is_in_it(stages, repository):
    (command,) = values(stages[-1], "CMD")
    (check,) = values(stages[-1], "HEALTHCHECK")

    assert values(stages[-1], "ENTRYPOINT") == ['["tini", "--"]']
    assert '"workers/serve.py"' in command
    assert '"healthcheck.py", "127.0.0.1:50051"' in check
    assert values(stages[-1], "EXPOSE") == ["50051"]
    for name in ("workers/serve.py", "deploy/healthcheck.py", "deploy/serve-on-ray.sh"):
        assert (repository / name).is_file()


def test_there_is_a_variant_with_cuda_and_one_without(stages):
    assert values(stages[-1], "ARG") == ["VARIANT=cpu"]
    (install,) = [value for value in values(stages[-1], "RUN") if "VARIANT" in value]
    assert "cpu) torch=" in install
    assert "cuda) torch=" in install


def test_the_script_is_a_program_that_needs_an_address(repository):
    script = repository / "deploy/serve-on-ray.sh"
    environment = {key: os.environ[key] for key in ("PATH",)}

    process = subprocess.run(
        [script, "server.toml"], env=environment, capture_output=True, text=True
    )

    assert process.returncode != 0
    assert "RAY_ADDRESS" in process.stderr

    environment["RAY_ADDRESS"] = "localhost:1"
    process = subprocess.run(
        [script, "server.toml"], env=environment, capture_output=True, text=True
    )

    assert process.returncode == 2  # and no loop is left that joins the cluster
    assert "this is for the image" in process.stderr


@pytest.mark.slow
def test_the_health_check_tells_a_server_from_none(repository, tmp_path):
    def check(*arguments):
        command = [sys.executable, repository / "deploy/healthcheck.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    with served(worlds.config(tmp_path)) as service:
        target = service._transport._target
        there = check(target)
    gone = check(target)

    assert (there.returncode, there.stderr) == (0, "")
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"{target}: UNAVAILABLE: ")
    for arguments in ((), (target, "ca", "cert"), (target, tmp_path / "none.pem")):
        wrong = check(*arguments)
        assert wrong.returncode == 1
        assert wrong.stderr.startswith("healthcheck.py")
        assert len(wrong.stderr.splitlines()) == 1
