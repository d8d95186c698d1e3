"""The configurations are read, and the example does what docs/deploy.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from curator.config import load_config
from curator.engine import Registry
from curator.service import Server


@pytest.mark.parametrize(
    "name",
    [
        "server.example.toml",
        "example/server.toml",
        "example/server.ray.toml",
        "kubernetes/server.toml",
    ],
)
def test_every_configuration_is_read(repository, name):
    assert load_config(repository / "deploy" / name).sessions


def test_no_configuration_is_left_out(repository):
    found = {path.name for path in (repository / "deploy").rglob("server*.toml")}

    assert found == {"server.example.toml", "server.toml", "server.ray.toml"}


@pytest.mark.slow
def test_the_example_chooses_fewer_mismatched_pairs(repository, tmp_path, monkeypatch):
    example = tmp_path / "example"
    shutil.copytree(
        repository / "deploy/example", example, ignore=shutil.ignore_patterns("state")
    )

    def run(script, *arguments):
        command = [sys.executable, example / script, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True)

    run("make_data.py", example / "data")
    monkeypatch.setattr(sys, "path", list(sys.path))  # the registry adds to it
    registry = Registry(load_config(example / "server.toml"))
    server = Server(registry, "127.0.0.1:0")
    try:
        out = run("train.py", server.address, "8").stdout
    finally:
        server.stop(grace_seconds=0.0)
        registry.close()

    shares = [int(share) for share in re.findall(r"mismatched (\d+)%", out)]
    assert len(shares) == 8
    assert sum(shares) / len(shares) < 35  # of a pool that has 50
