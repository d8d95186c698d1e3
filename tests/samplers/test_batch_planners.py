from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from pair_worlds import unit

from curator.config import batches_to_table, parse_batches
from curator.errors import ConfigError
from curator.samplers import (
    BATCH_PLANNERS,
    B3Batches,
    BatchPlanner,
    ClusterBatches,
    b3_plan,
    cluster_plan,
)

RNG = np.random.default_rng(0)
SIDES = [unit(RNG.standard_normal((60, 6))).astype(np.float32) for _ in range(2)]
LABELS = RNG.integers(0, 9, 60)


@pytest.mark.parametrize("name", BATCH_PLANNERS)
def test_a_name_and_fields_are_read_back(name):
    made = parse_batches({"name": name, "cluster_size": 5})

    assert isinstance(made, BatchPlanner)
    assert parse_batches(batches_to_table(made)) == made
    assert parse_batches(name) == BATCH_PLANNERS[name]()


def test_b3_is_the_function_with_these_fields():
    made = B3Batches(cluster_size=5, skip=2, window=9, partitioner="numpy")

    found = made.plan(*SIDES, batch_size=20, labels=LABELS, seed=3, epoch=2)

    wanted = b3_plan(
        *SIDES, batch_size=20, cluster_size=5, skip=2, window=9, labels=LABELS,
        partitioner="numpy", seed=3, epoch=2,
    )  # fmt: skip
    np.testing.assert_array_equal(found.batches, wanted.batches)
    assert found.stats == wanted.stats


def test_clusters_are_of_both_sides_where_there_are_two():
    made = ClusterBatches(cluster_size=5)
    queries, targets = SIDES

    by = "faiss"  # which is installed: it is auto
    both = made.plan(3 * queries, targets, batch_size=20, seed=3)
    one = made.plan(queries, queries, batch_size=20, seed=3)

    rows = np.concatenate([queries, targets], axis=1)
    wanted = cluster_plan(rows, batch_size=20, cluster_size=5, k_means=by, seed=3)
    np.testing.assert_array_equal(both.batches, wanted.batches)
    wanted = cluster_plan(queries, batch_size=20, cluster_size=5, k_means=by, seed=3)
    np.testing.assert_array_equal(one.batches, wanted.batches)


def test_settled_leaves_nothing_open(monkeypatch):
    by_faiss = ClusterBatches(cluster_size=24, k_means="faiss")
    by_numpy = dataclasses.replace(by_faiss, k_means="numpy")
    assert ClusterBatches().settled(24) == by_faiss
    assert ClusterBatches(k_means="numpy").settled(24) == by_numpy
    assert B3Batches().settled(64).partitioner == "metis"
    assert B3Batches(partitioner="numpy").settled(64).partitioner == "numpy"
    monkeypatch.setitem(sys.modules, "pymetis", None)
    assert B3Batches().settled(64).partitioner == "numpy"
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert ClusterBatches().settled(24) == by_numpy


@pytest.mark.parametrize("made", [B3Batches(), ClusterBatches(cluster_size=32)])
def test_a_batch_size_that_is_no_multiple_is_refused(made):
    with pytest.raises(ValueError, match="got batch_size=48, cluster_size=32"):
        made.settled(48)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"name": "b4"},
            r"batches\.name: unknown batch plan 'b4'. Known: b3, clusters",
        ),
        ({"name": "b3", "skp": 3}, r"unknown key 'batches\.skp' \(did you mean 'skip'"),
        ({"name": "b3", "skip": -1}, "skip must be at least 0"),
        ({"name": "b3", "window": 0}, "window at least 1"),
        ({"name": "b3", "cluster_size": 0}, "cluster_size must be at least 1; got 0"),
        ({"name": "clusters", "cluster_size": 0}, "cluster_size must be at least 1"),
        ({"name": "clusters", "k_means": "x"}, r"k_means: expected .*'faiss'; got"),
        ({"name": "clusters", "label": "a"}, r"unknown key 'batches\.label'"),
        ({"name": "b3", "partitioner": "kahip"}, r"batches\.partitioner: expected "),
    ],
)
def test_wrong_fields_are_told(table, message):
    with pytest.raises(ConfigError, match=message):
        parse_batches(table)
