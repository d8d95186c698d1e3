import numpy as np
import pyarrow as pa
import pytest

from curator.engine._hosted_scorer import Shard, Snapshot
from curator.engine._packed import (
    PackedShard,
    pack_scored,
    pack_snapshot,
    unpack_scored,
    unpack_shard,
    unpack_snapshot,
)
from curator.types import PairEmbeddings


@pytest.mark.parametrize("rows", [None, pa.record_batch({"x": [1, 2, 3]})])
def test_a_shard_comes_out_as_it_went_in(rows):
    needs = frozenset({"learner.loss", "reference.embeddings"})
    shard = Shard("a few", np.array([3, 0, 2**40]), needs, rows)

    packed = PackedShard.of(shard)
    found = unpack_shard(packed.data)

    assert (packed.name, packed.has_rows) == ("a few", rows is not None)
    assert (found.name, found.needs) == (shard.name, needs)
    assert found.ids.dtype == np.int64
    assert found.ids.tolist() == [3, 0, 2**40]
    assert found.rows is None if rows is None else found.rows.equals(rows)


def test_a_snapshot_comes_out_as_it_went_in():
    snapshot = Snapshot("weights.safetensors", (1, 2, 3))

    assert unpack_snapshot(pack_snapshot(snapshot)) == snapshot
    assert unpack_snapshot(None) is None


@pytest.mark.parametrize("bias", [None, -10.0])
def test_scores_come_out_to_the_last_bit(bias):
    rng = np.random.default_rng(0)
    losses = np.array([1.5, np.nan, -np.inf], np.float32)
    matrix = rng.standard_normal((3, 4)).astype(np.float16)
    sides = rng.standard_normal((2, 5, 3)).astype(np.float32).transpose(0, 2, 1)
    pairs = PairEmbeddings(sides[0], sides[1], 14.3, bias)
    features = {
        "learner.loss": losses,
        "m": matrix,
        "every other": matrix[:, ::2],
        "reference.embeddings": pairs,
    }

    found, seconds, num_scored = unpack_scored(
        pack_scored((features, 0.25, {"learner": 3}))
    )

    assert (seconds, num_scored) == (0.25, {"learner": 3})
    assert list(found) == list(features)
    np.testing.assert_array_equal(found["learner.loss"], losses, strict=True)
    np.testing.assert_array_equal(found["m"], matrix, strict=True)
    np.testing.assert_array_equal(found["every other"], matrix[:, ::2], strict=True)
    other = found["reference.embeddings"]
    np.testing.assert_array_equal(other.queries, pairs.queries, strict=True)
    np.testing.assert_array_equal(other.targets, pairs.targets, strict=True)
    assert (other.logit_scale, other.logit_bias) == (14.3, bias)


def test_large_scores_stay_what_they_are():
    scored = {"learner.loss": np.zeros(1 << 19)}, 0.25, {"learner": 1 << 19}

    assert unpack_scored(pack_scored(scored)) is scored
