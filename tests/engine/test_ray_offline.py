"""Whole pools scored on a real cluster: the files are those of one process."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray_worlds
import worlds
from ray_worlds import kill, obeyed, order, scorers

from curator.cli.__main__ import main
from curator.config import load_config
from curator.offline import ScoreJob, score

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]

NUM_EXAMPLES = 900
SHARD_SIZE = 128


@pytest.fixture
def path(tmp_path, ray_cluster):
    """A configuration of a pool on disk, and a model that takes orders, on Ray."""
    table = worlds.pairs(NUM_EXAMPLES)
    with pa.ipc.new_file(tmp_path / "pairs.arrow", table.schema) as writer:
        writer.write_table(table)
    ours = ray_worlds.config(tmp_path, "ray")
    model, server = ours.models["reference"], ours.server
    args = ", ".join(f"{k} = {json.dumps(v)}" for k, v in model.args.items())
    path = tmp_path / "server.toml"
    path.write_text(
        f"""
        [server]
        python_path = {json.dumps(server.python_path)}

        [ray]
        address = "{ray_cluster.address}"
        num_cpus = 0.5
        min_scorers = 2
        max_scorers = 2
        shard_size = 16

        [pools.pairs]
        format = "arrow"
        path = "pairs.arrow"

        [models.reference]
        factory = "{model.factory}"
        args = {{ {args} }}
        columns = {json.dumps(model.columns)}
        micro_batch_size = 16
        """
    )
    return path


def call(path, out, *options):
    where = ["--pool", "pairs", "--model", "reference", "--out", str(out)]
    size = ["--shard-size", str(SHARD_SIZE)]
    return main(["score", str(path), *where, *size, *options])


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_scorers_that_are_lost_change_no_byte(path, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    given = ["--columns", "caption", "--where", "number >= 30"]
    assert call(path, here, *given, "--executor", "local") == 0
    assert scorers(tmp_path) == []
    killed = []

    def interfere(progress):
        if progress.num_scored >= 128 and not obeyed(tmp_path, "die"):
            order(tmp_path, "die")  # in the middle of a forward pass
        if progress.num_scored >= 512 and not killed:
            killed.append(scorers(tmp_path)[-1])
            kill(killed[0])

    job = ScoreJob(
        pool="pairs",
        model="reference",
        out=there,
        where="number >= 30",
        columns=("caption",),
        shard_size=SHARD_SIZE,
    )
    report = score(load_config(path, executor="ray"), job, on_progress=interfere)

    assert report.is_finished
    assert killed
    assert obeyed(tmp_path, "die")
    assert contents(there) == contents(here)
    table = pq.read_table(there)
    np.testing.assert_array_equal(table["example_id"], np.arange(30, NUM_EXAMPLES))
    assert table["caption"][0].as_py() == "pair 30"


def test_a_run_begun_in_one_process_is_finished_on_a_cluster(path, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call(path, whole, "--executor", "local") == 0
    job = ScoreJob(pool="pairs", model="reference", out=out, shard_size=SHARD_SIZE)
    config = load_config(path, executor="local")
    score(config, job, should_stop=lambda: True)
    capsys.readouterr()

    assert call(path, out, "--executor", "ray", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["num_ready"], found["num_scored"]) == (128, NUM_EXAMPLES - 128)
    assert contents(out) == contents(whole)


def test_a_dry_run_says_what_a_cluster_would_take(path, tmp_path, capsys):
    assert call(path, tmp_path / "out", "--executor", "ray", "--dry-run", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["num_examples"] == NUM_EXAMPLES
    assert not (tmp_path / "out").exists()
