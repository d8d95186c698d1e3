"""The checked-in generated code is fresh, and runs on the oldest versions we allow."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version


def floor(repository: Path, package: str) -> Version:
    """The lower bound of a dependency in pyproject.toml."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (wanted,) = (
        requirement
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name == package
    )
    (bound,) = (part for part in wanted.specifier if part.operator == ">=")
    return Version(bound.version)


def generated_by(repository: Path, pattern: str, text: str) -> set[Version]:
    """The versions that the generated files say they need."""
    files = sorted((repository / "curator" / "rpc").rglob(pattern))
    found = [re.search(text, path.read_text()) for path in files]
    assert found
    assert None not in found
    return {Version(match[1]) for match in found if match}


def test_protobuf_floor_runs_the_generated_code(repository: Path) -> None:
    needed = generated_by(repository, "*_pb2.py", r"Protobuf Python Version: (\S+)")

    assert max(needed) <= floor(repository, "protobuf")


def test_grpcio_floor_runs_the_generated_code(repository: Path) -> None:
    needed = generated_by(
        repository, "*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '(.+)'"
    )

    assert max(needed) <= floor(repository, "grpcio")


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of the protos and of what was generated from them."""
    shutil.copytree(repository / "protos", tmp_path / "protos")
    shutil.copytree(
        repository / "curator" / "rpc",
        tmp_path / "curator" / "rpc",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def generate(checkout: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    script = checkout / "protos" / "generate.py"
    return subprocess.run(
        [sys.executable, str(script), *flags], capture_output=True, text=True
    )


def test_generated_code_is_fresh(checkout: Path) -> None:
    process = generate(checkout, "--check")

    assert (process.returncode, process.stderr) == (0, "")


def test_drift_is_reported_and_mended(checkout: Path) -> None:
    folder = checkout / "curator" / "rpc" / "v1"
    original = (folder / "curation_pb2.py").read_bytes()
    (folder / "curation_pb2.py").write_bytes(original + b"\n")
    (folder / "curation_pb2_grpc.pyi").unlink()
    (folder / "orphan_pb2.py").touch()

    process = generate(checkout, "--check")

    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "curator/rpc/v1/curation_pb2.py is not what protos/ generates",
        "curator/rpc/v1/curation_pb2_grpc.pyi is not what protos/ generates",
        "curator/rpc/v1/orphan_pb2.py is not what protos/ generates",
        "Run: make protos",
    ]

    assert generate(checkout).returncode == 0

    assert generate(checkout, "--check").returncode == 0
    assert (folder / "curation_pb2.py").read_bytes() == original
    assert not (folder / "orphan_pb2.py").exists()
