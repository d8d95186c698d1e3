"""The joint policy on sharded embeddings: the batch that it draws from whole ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import (
    noisy_world,
    random_embeddings,
    scores_of,
)

from curator.errors import FeatureError
from curator.policies import Joint
from curator.rng import Noise
from curator.scores import PAIR_COSTS, LocalShards, shard_rows
from curator.scores._pairwise import BLOCK_SIZE
from curator.types import PairEmbeddings, ShardedPairs

pytestmark = pytest.mark.usefixtures("costs_of_few_candidates_wait")
NOISE = Noise(seed=0, step=0)
SCORES = ("learnability", "easy_reference", "hard_learner")


def sharded(
    features: Mapping[str, PairEmbeddings],
    ids: np.ndarray,
    rows: Sequence[np.ndarray],
) -> dict[str, LocalShards]:
    """The same features, cut into shards of these candidates."""
    rows = [part[np.argsort(ids[part])] for part in rows]

    def part_of(embeddings: PairEmbeddings, part: np.ndarray) -> PairEmbeddings:
        return dataclasses.replace(
            embeddings,
            queries=embeddings.queries[part],
            targets=embeddings.targets[part],
        )

    shards = LocalShards(
        rows,
        [
            {name: part_of(value, part) for name, value in features.items()}
            for part in rows
        ],
    )
    return dict.fromkeys(features, shards)


def select_both(policy, features, rows, num_selected, *, ids=None, noise=NOISE):
    """What is drawn from the whole embeddings, and from shards of these candidates."""
    if ids is None:
        ids = np.arange(sum(len(part) for part in rows))
    parts = sharded(features, ids, rows)
    return [policy.select(ids, each, num_selected, noise) for each in (features, parts)]


def assert_same_batch(whole, parts):
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_array_equal(parts.weights, whole.weights)
    np.testing.assert_allclose(scores_of(parts), scores_of(whole), rtol=1e-4, atol=1e-4)
    assert parts.stats == pytest.approx(whole.stats, rel=1e-3, abs=1e-4)


def assert_equal_to_the_last_bit(whole, parts):
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_array_equal(parts.weights, whole.weights)
    np.testing.assert_array_equal(scores_of(parts), scores_of(whole))
    assert parts.stats == whole.stats


@settings(max_examples=60)
@given(data=st.data())
def test_any_shards_draw_the_batch_of_one_device(data):
    num = data.draw(st.integers(1, 120), label="B")
    num_selected = data.draw(st.integers(1, num), label="K")
    num_shards = data.draw(st.integers(1, 7), label="shards")
    rng = np.random.default_rng(data.draw(st.integers(0, 999), label="seed"))
    features, _ = noisy_world(seed=int(rng.integers(1000)), num=num, scale=15.0)
    num_bad = data.draw(st.sampled_from([0, 1, num // 2, num]), label="unusable")
    for value in features.values():
        value.targets[rng.permutation(num)[:num_bad]] = np.nan
    policy = Joint(
        score=data.draw(st.sampled_from(SCORES)),
        loss=data.draw(st.sampled_from(list(PAIR_COSTS))),
        num_chunks=data.draw(st.integers(1, min(num_selected, 16)), label="chunks"),
        temperature=data.draw(st.sampled_from([0.0, 0.2, 1.0])),
    )
    owners = rng.integers(num_shards, size=num)

    whole, parts = select_both(
        policy,
        features,
        [np.flatnonzero(owners == shard) for shard in range(num_shards)],
        num_selected,
        ids=rng.choice(10**6, size=num, replace=False),
        noise=Noise(seed=1, step=num),
    )

    assert_same_batch(whole, parts)


@pytest.mark.parametrize("loss", PAIR_COSTS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("num_shards", [2, 9])
def test_shards_of_whole_blocks_are_equal_to_the_last_bit(score, loss, num_shards):
    # The last block is not full, chunks are of more rows than a tile. A scale at which
    # scores are in the hundreds: were they rounded otherwise, the order would differ.
    num, num_selected = 3 * BLOCK_SIZE - 70, 600
    rng = np.random.default_rng(num_shards)
    features, _ = noisy_world(seed=2, num=num, scale=20.0)
    features["learner.embeddings"].queries[rng.permutation(num)[:300]] = np.nan
    features["reference.embeddings"].targets[rng.permutation(num)[:9]] = 0
    ids = rng.choice(10**6, size=num, replace=False)
    rows = shard_rows(ids, num_shards)

    whole, parts = select_both(
        Joint(score=score, loss=loss, num_chunks=2),
        features,
        rows,
        num_selected,
        ids=ids,
    )

    assert len(rows) == min(num_shards, 3)
    assert_equal_to_the_last_bit(whole, parts)


@pytest.mark.parametrize("loss", PAIR_COSTS)
def test_one_shard_is_equal_to_the_last_bit(loss):
    features, _ = noisy_world(seed=0, num=300)
    ids = np.random.default_rng(0).permutation(300)

    whole, parts = select_both(
        Joint(loss=loss), features, shard_rows(ids, 4), 60, ids=ids
    )

    assert_equal_to_the_last_bit(whole, parts)


@pytest.mark.parametrize("num_selected", [20, 50])
def test_shard_without_usable_rows_is_set_aside_and_tops_up(num_selected):
    features, _ = noisy_world(seed=0, num=60)
    features["learner.embeddings"].queries[20:40] = np.inf
    rows = np.split(np.arange(60), [20, 40])

    whole, parts = select_both(Joint(num_chunks=4), features, rows, num_selected)

    assert_same_batch(whole, parts)
    bad = (parts.indices >= 20) & (parts.indices < 40)
    assert parts.stats["num_quarantined"] == 20
    assert bad.sum() == parts.stats["num_topped_up"] == max(num_selected - 40, 0)


def test_more_shards_than_candidates_leave_some_empty():
    features, _ = noisy_world(seed=0, num=5)
    rows = np.split(np.arange(5), [0, 1, 2, 3, 3, 4, 5])

    assert_same_batch(*select_both(Joint(num_chunks=2), features, rows, 4))


def test_same_shards_can_be_selected_from_again():
    features, _ = noisy_world(seed=0, num=90)
    ids = np.arange(90)
    pairs = sharded(features, ids, np.split(ids, [30, 60]))

    first, again = (Joint().select(ids, pairs, 30, NOISE) for _ in range(2))
    other = Joint(loss="softmax").select(ids, pairs, 30, NOISE)

    assert_equal_to_the_last_bit(first, again)
    assert_same_batch(Joint(loss="softmax").select(ids, features, 30, NOISE), other)


class Counting(LocalShards):
    """Counts what travels."""

    def __init__(self, rows, embeddings):
        super().__init__(rows, embeddings)
        self.num_rows = self.num_calls = 0

    def take(self, chunks):
        taken = super().take(chunks)
        self.num_calls += 1
        self.num_rows += sum(rows.shape[1] for models in taken for rows in models)
        return taken


def test_only_embeddings_of_drawn_candidates_travel():
    features, _ = noisy_world(seed=0, num=90)
    pairs = Counting([np.arange(90)], [features])

    Joint(num_chunks=6).select(np.arange(90), dict.fromkeys(features, pairs), 30, NOISE)

    assert pairs.num_calls == 5  # the last chunk changes no choice
    assert pairs.num_rows == 2 * 25  # two models


def test_local_shards_keep_the_protocol():
    features, _ = noisy_world(seed=0, num=9)
    rows = [np.arange(4), np.arange(4, 9)]
    (pairs, _) = sharded(features, np.arange(9), rows).values()

    assert isinstance(pairs, ShardedPairs)
    assert pairs.logits == dict.fromkeys(features, (10.0, -10.0))
    assert not isinstance(features["learner.embeddings"], ShardedPairs)


def select_from(pairs, num=20, policy=None):
    policy = policy or Joint(num_chunks=2)
    return policy.select(np.arange(num), pairs, 4, NOISE)


def test_embeddings_of_which_only_some_are_sharded_are_an_error():
    features, _ = noisy_world(seed=0, num=20)
    pairs = sharded(features, np.arange(20), [np.arange(20)])
    mixed = {**features, "learner.embeddings": pairs["learner.embeddings"]}

    with pytest.raises(FeatureError, match=r"one and the same sharded .*got PairEmbed"):
        select_from(mixed)


def test_model_that_the_shards_do_not_hold_is_an_error():
    features, _ = noisy_world(seed=0, num=20)
    learner = {"learner.embeddings": features["learner.embeddings"]}
    (pairs,) = sharded(learner, np.arange(20), [np.arange(20)]).values()

    with pytest.raises(FeatureError, match="hold all these models; got LocalShards"):
        select_from(dict.fromkeys(features, pairs))


@pytest.mark.parametrize("rows", [np.arange(20), np.array([*range(18), 17])])
def test_shards_of_other_candidates_are_an_error(rows):
    features, _ = noisy_world(seed=0, num=20)
    pairs = sharded(features, np.arange(20), np.split(rows, [7]))

    with pytest.raises(
        FeatureError, match=rf"each of 19 candidates once; got {len(rows)} rows in 2"
    ):
        select_from(pairs, num=19)


def test_missing_sharded_embeddings_are_an_error():
    features, _ = noisy_world(seed=0, num=20)
    pairs = sharded(features, np.arange(20), [np.arange(20)])
    del pairs["reference.embeddings"]

    with pytest.raises(
        FeatureError, match=r"needs the feature 'reference\.embeddings'"
    ):
        select_from(pairs)


@pytest.mark.parametrize(
    ("bias", "scale", "message"),
    [(None, 10.0, "needs the model's logit_bias"), (-1.0, 0.0, "logit_scale must be")],
)
def test_logits_of_shards_are_checked_like_those_of_one_device(bias, scale, message):
    embeddings = random_embeddings(np.random.default_rng(0), 20, bias=bias, scale=scale)
    learner = {"learner.embeddings": embeddings}
    pairs = sharded(learner, np.arange(20), [np.arange(20)])

    with pytest.raises(FeatureError, match=message):
        select_from(pairs, policy=Joint(score="hard_learner", num_chunks=2))


@settings(max_examples=60)
@given(num=st.integers(1, 9 * BLOCK_SIZE), num_shards=st.integers(1, 12))
def test_shards_are_near_equal_runs_of_whole_blocks_in_order_of_id(num, num_shards):
    ids = np.random.default_rng(num).permutation(num) * 3

    rows = shard_rows(ids, num_shards)

    np.testing.assert_array_equal(ids[np.concatenate(rows)], np.sort(ids))
    assert all(len(part) % BLOCK_SIZE == 0 for part in rows[:-1])
    blocks = [-(-len(part) // BLOCK_SIZE) for part in rows]
    assert len(rows) == min(num_shards, sum(blocks))
    assert max(blocks) <= min(blocks) + 1
