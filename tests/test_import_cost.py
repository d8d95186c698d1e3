"""Importing the package is free: what is heavy is imported where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

HEAVY = {"google.protobuf", "grpc", "pyarrow", "pydantic", "ray", "torch"}


def heavy_after(statement: str) -> set[str]:
    """Which of HEAVY a fresh interpreter has loaded after a statement."""
    probe = f"{statement}\nimport sys; print(sorted({HEAVY} & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", probe], check=True, capture_output=True, text=True
    )
    return set(ast.literal_eval(process.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "curator",
        "curator.cli.__main__",
        "curator.errors",
        "curator.policies",
        "curator.rng",
        "curator.samplers",
        "curator.scores",
        "curator.types",
    ],
)
def test_import_loads_nothing_heavy(module: str) -> None:
    assert heavy_after(f"import {module}") == set()


def test_probe_sees_heavy_imports() -> None:
    loaded = heavy_after("import curator.rpc.v1.curation_pb2_grpc, pyarrow")

    assert loaded >= {"google.protobuf", "grpc", "pyarrow"}
