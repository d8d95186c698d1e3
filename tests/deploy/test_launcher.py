"""The file of Ray's cluster launcher, by Ray's own validation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a process of its own: importing Ray's autoscaler sets things up for good.
PROGRAM = """
import json, sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
config = yaml.safe_load(open(sys.argv[1]))
config.update(json.loads(sys.argv[2]))
validate_config(prepare_config(config))
print("valid")
"""

pytest.importorskip("ray")


def validate(repository, changes="{}"):
    launcher = repository / "deploy/ray-launcher.yaml"
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, launcher, changes],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )


@pytest.mark.slow
def test_ray_accepts_it(repository):
    process = validate(repository)

    assert process.stdout.splitlines()[-1:] == ["valid"], process.stderr


@pytest.mark.slow
def test_ray_would_see_a_mistake(repository):
    process = validate(repository, '{"head_start_ray_command": "ray start"}')

    assert process.returncode != 0
    assert "head_start_ray_command" in process.stderr


def test_every_node_wants_the_token_and_has_it(repository):
    import yaml

    config = yaml.safe_load((repository / "deploy/ray-launcher.yaml").read_text())

    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token " in command for command in starts)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
