from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import unit

from curator.samplers import (
    PartitionerName,
    _batch_graph,
    _batch_plans,
    b3_plan,
    cluster_plan,
)
from curator.samplers._batch_graph import (
    NegativeGraph,
    balance,
    metis,
    mutual_graph,
    part_by_growing,
    part_by_metis,
)

PARTITIONERS = ("numpy", "metis")


def blocks(num: int, each: int, seed: int = 0, width: int = 24):
    """Queries and targets in groups that are far from each other; and the groups."""
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat(np.arange(num), each))
    centres = np.eye(max(width, num))[of][:, : max(width, num)]
    sides = [
        unit(centres + 0.02 * rng.standard_normal(centres.shape)) for _ in range(2)
    ]
    return sides[0].astype(np.float32), sides[1].astype(np.float32), of


def graph_of(edges: set[tuple[int, int]], num: int) -> NegativeGraph:
    both = sorted({*edges, *((j, i) for i, j in edges)})
    codes = np.array([i * num + j for i, j in both], np.int64)
    starts = np.searchsorted(codes, np.arange(num + 1) * num)
    return NegativeGraph(starts, codes % num)


def edges_of(graph: NegativeGraph) -> set[tuple[int, int]]:
    return {
        (node, int(other))
        for node in range(graph.num_nodes)
        for other in graph.of(node)
    }


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num=st.integers(2, 25),
    skip=st.integers(0, 5),
    window=st.integers(1, 8),
    labelled=st.booleans(),
)
def test_the_graph_is_that_of_its_definition(seed, num, skip, window, labelled):
    rng = np.random.default_rng(seed)
    queries = unit(rng.standard_normal((num, 4))).astype(np.float32)
    targets = unit(rng.standard_normal((num, 4))).astype(np.float32)
    labels = rng.integers(0, 5, num) if labelled else None

    graph = mutual_graph(queries, targets, skip=skip, window=window, labels=labels)

    own = np.arange(num) if labels is None else labels
    windows = []
    for i in range(num):
        order = np.argsort(-(queries[i] @ targets.T), kind="stable")
        ranked = [int(j) for j in order if own[j] != own[i]]
        windows.append(set(ranked[skip : skip + window]))
    wanted = {
        (i, j)
        for i, j in itertools.permutations(range(num), 2)
        if j in windows[i] and i in windows[j]
    }
    assert edges_of(graph) == wanted


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_every_example_is_in_one_batch_or_left_over(partitioner):
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((500, 8))).astype(np.float32)

    plan = b3_plan(
        rows, rows, batch_size=64, cluster_size=16, skip=2, window=20,
        partitioner=partitioner,
    )  # fmt: skip

    everything = np.concatenate([plan.batches.ravel(), plan.leftover])
    np.testing.assert_array_equal(np.sort(everything), np.arange(500))
    sizes = np.bincount(plan.clusters)
    assert sorted(sizes, reverse=True) == [16] * 31 + [4]
    assert plan.batches.shape == (7, 64)
    for batch in plan.batches:
        # Clusters are whole inside a batch.
        assert len(np.unique(plan.clusters[batch])) == 4


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_separate_blocks_become_the_clusters(partitioner):
    queries, targets, of = blocks(8, 12)

    plan = b3_plan(
        queries, targets, batch_size=24, cluster_size=12, skip=0, window=11,
        partitioner=partitioner,
    )  # fmt: skip

    assert len({*zip(plan.clusters.tolist(), of.tolist(), strict=True)}) == 8
    assert plan.stats["within_fraction"] == 1
    assert plan.stats["num_isolated"] == 0


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_batches_are_harder_than_random_ones(partitioner):
    rng = np.random.default_rng(1)
    centres = unit(rng.standard_normal((40, 12)))
    rows = unit(
        centres[rng.integers(40, size=1200)] + 0.3 * rng.standard_normal((1200, 12))
    )

    def difficulty(batches: np.ndarray) -> float:
        found = [rows[batch] @ rows[batch].T for batch in batches]
        return float(np.mean([s[~np.eye(len(s), dtype=bool)].mean() for s in found]))

    plan = b3_plan(
        rows, rows, batch_size=64, cluster_size=32, skip=3, window=30,
        partitioner=partitioner,
    )  # fmt: skip

    random = rng.permutation(1200)[: plan.batches.size].reshape(plan.batches.shape)
    assert difficulty(plan.batches) > difficulty(random) + 0.1


def test_growing_cuts_little_more_than_the_best_partition():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pairs = list(itertools.combinations(range(9), 2))
        chosen = {pairs[i] for i in rng.permutation(len(pairs))[:14]}
        graph = graph_of(chosen, 9)

        parts = balance(graph, part_by_growing(graph, 3, seed), 3)

        best = 0.0
        for second in itertools.combinations(range(1, 9), 2):
            rest = [i for i in range(1, 9) if i not in second]
            for third in itertools.combinations(rest[1:], 2):
                labels = np.full(9, 2)
                labels[[0, *second]] = 0
                labels[[rest[0], *third]] = 1
                best = max(best, graph.within(labels))
        assert graph.within(parts) >= 0.5 * best


def test_examples_without_edges_are_in_the_plan():
    graph = graph_of({(0, 1)}, 7)

    for parts in (part_by_growing(graph, 2, 0), part_by_metis(graph, 4, 0)):
        parts = balance(graph, parts, 2)
        assert sorted(np.bincount(parts, minlength=4)) == [1, 2, 2, 2]
        assert parts[0] == parts[1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 40), size=st.integers(1, 9))
def test_balanced_parts_have_the_size(seed, num, size):
    rng = np.random.default_rng(seed)
    edges = {tuple(rng.integers(num, size=2).tolist()) for _ in range(3 * num)}
    graph = graph_of({(i, j) for i, j in edges if i != j}, num)
    parts = rng.integers(0, -(-num // size), num)

    balanced = balance(graph, parts, size)

    rest = num % size
    wanted = [size] * (num // size) + [rest] * (rest > 0)
    assert sorted(np.bincount(balanced), reverse=True) == wanted


def test_overflow_goes_where_its_edges_are():
    # Five in part 0, which holds four: the one without edges inside leaves, to part 1.
    graph = graph_of({(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (8, 9)}, 12)
    parts = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])

    balanced = balance(graph, parts, 4)

    np.testing.assert_array_equal(balanced, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])


def test_the_same_seed_and_epoch_are_the_same_plan_and_epochs_differ():
    rows = unit(np.random.default_rng(2).standard_normal((200, 6))).astype(np.float32)

    def plan(seed: int = 0, epoch: int = 0):
        return cluster_plan(
            rows, batch_size=20, cluster_size=10, seed=seed, epoch=epoch
        )

    first = plan(epoch=3)
    np.testing.assert_array_equal(first.batches, plan(epoch=3).batches)
    np.testing.assert_array_equal(first.batches, plan().for_epoch(3).batches)
    assert not np.array_equal(first.batches, plan().batches)
    assert not np.array_equal(plan(seed=1).batches, plan().batches)
    np.testing.assert_array_equal(first.clusters, plan().clusters)


def test_cluster_batches_are_of_like_examples():
    queries, _, of = blocks(6, 20)

    plan = cluster_plan(queries, batch_size=20)

    assert plan.batches.shape == (6, 20)
    # k-means may merge two groups and part a third.
    shares = [np.bincount(of[batch]).max() / 20 for batch in plan.batches]
    assert np.mean(shares) > 0.7
    assert plan.stats["similarity"] > 0.7


def test_neighbours_are_the_same_however_few_are_looked_for_at_once(monkeypatch):
    queries, targets, _ = blocks(6, 10)
    labels = np.repeat([0, 1, 2], [40, 15, 5])  # most are of one label

    def edges():
        graph = mutual_graph(queries, targets, skip=1, window=8, labels=labels)
        return graph.starts, graph.neighbours

    at_once = edges()
    for most in (1, 100, 1000):
        monkeypatch.setattr(_batch_graph, "_MAX_FOUND", most)
        for one, other in zip(edges(), at_once, strict=True):
            np.testing.assert_array_equal(one, other)


def test_without_metis_auto_grows_and_metis_is_an_error(monkeypatch):
    queries, targets, _ = blocks(4, 8)
    monkeypatch.setitem(sys.modules, "pymetis", None)

    def plan(partitioner: PartitionerName):
        return b3_plan(
            queries, targets, batch_size=8, cluster_size=8, skip=0, window=7,
            partitioner=partitioner,
        )  # fmt: skip

    assert metis() is None
    np.testing.assert_array_equal(plan("auto").batches, plan("numpy").batches)
    with pytest.raises(ValueError, match="needs the package pymetis"):
        plan("metis")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 6, "cluster_size": 4}, "must be a multiple of cluster_size"),
        ({"batch_size": 0, "cluster_size": 4}, "must be a multiple of cluster_size"),
        ({"batch_size": 4, "cluster_size": 0}, "must be a multiple of cluster_size"),
        ({"batch_size": 16, "cluster_size": 4}, "at most the number of examples"),
        ({"batch_size": 4, "cluster_size": 4, "skip": -1}, "skip must be at least 0"),
        ({"batch_size": 4, "cluster_size": 4, "window": 0}, "window at least 1"),
    ],
)
def test_wrong_sizes_are_refused(arguments, message):
    rows = np.eye(8, dtype=np.float32)

    with pytest.raises(ValueError, match=message):
        b3_plan(rows, rows, **arguments)


def test_wrong_embeddings_are_refused():
    rows = np.eye(8, dtype=np.float32)
    bad = rows.copy()
    bad[3] = np.nan

    with pytest.raises(ValueError, match="must have one shape"):
        b3_plan(rows, rows[:5], batch_size=4, cluster_size=4)
    with pytest.raises(
        ValueError, match=r"targets must be finite.*1 rows are not, row 3"
    ):
        b3_plan(rows, bad, batch_size=4, cluster_size=4)
    with pytest.raises(ValueError, match="rows must be finite and not of length 0"):
        cluster_plan(rows * 0, batch_size=4)


def test_wrong_embeddings_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr(_batch_plans, "_BLOCK", 3)
    rows = np.eye(8, dtype=np.float32)
    rows[[2, 4, 7]] = 0

    with pytest.raises(ValueError, match="3 rows are not, row 2 the first"):
        cluster_plan(rows, batch_size=4)


def test_lengths_do_not_matter_in_any_block(monkeypatch):
    rows = np.random.default_rng(3).standard_normal((40, 5)).astype(np.float32)
    whole = cluster_plan(rows, batch_size=8)
    monkeypatch.setattr(_batch_plans, "_BLOCK", 7)

    scaled = cluster_plan(rows * np.float32(2.0) ** 3, batch_size=8)

    np.testing.assert_array_equal(scaled.batches, whole.batches)
