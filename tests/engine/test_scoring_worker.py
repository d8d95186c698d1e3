from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_models
import two_tower
from scorers import embed, lists_of, scorer

from curator.engine._scoring_worker import ScoringWorker
from curator.errors import SnapshotError
from curator.models import (
    CausalLMHead,
    ClassifierHead,
    ModuleScorer,
    ScoreTable,
    write_weights,
)
from curator.pools import MemoryPool
from curator.store import FeatureStore
from curator.types import Features, PairEmbeddings

NUM_EXAMPLES = 60
OUTPUTS = ("loss", "grad_norm", "entropy")


@pytest.fixture
def pool() -> MemoryPool:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((NUM_EXAMPLES, 16), np.float32)
    values[7] = np.nan
    tokens = rng.integers(0, small_models.VOCABULARY, (NUM_EXAMPLES, 6))
    pairs = two_tower.rows(NUM_EXAMPLES)
    return MemoryPool(
        pa.table(
            {
                "x": lists_of(values),
                "y": rng.integers(0, 16, NUM_EXAMPLES),
                "words": lists_of(tokens),
                "image": pairs.column("image"),
                "tokens": pairs.column("tokens"),
            }
        )
    )


def classifier(seed: int = 0) -> ModuleScorer:
    return scorer(
        "small_models:classifier",
        ClassifierHead(label="y"),
        args={"seed": seed},
        columns=["x"],
    )


def calls_of(model: ModuleScorer) -> list[int]:
    """A list that grows with each forward pass of a model."""
    calls: list[int] = []
    module: Any = model._hosted.module
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def stores(folder: Path, *names: str) -> Mapping[str, FeatureStore]:
    return {name: FeatureStore(folder / name, NUM_EXAMPLES) for name in names}


def needs(*names: str) -> frozenset[str]:
    return frozenset(names)


def assert_equal(ours: Features, theirs: Features) -> None:
    assert ours.keys() == theirs.keys()
    for name, feature in ours.items():
        other = theirs[name]
        if isinstance(feature, PairEmbeddings):
            assert isinstance(other, PairEmbeddings)
            np.testing.assert_array_equal(feature.queries, other.queries)
            np.testing.assert_array_equal(feature.targets, other.targets)
            assert feature.logit_scale == other.logit_scale
        else:
            np.testing.assert_array_equal(feature, other)


def test_features_are_the_outputs_of_each_model_in_the_order_of_the_ids(
    pool: MemoryPool,
) -> None:
    worker = ScoringWorker(pool, learner=classifier(), reference=classifier(3))
    ids = np.array([9, 3, 40, 4])

    features, seconds, num_scored = worker.score(
        ids, needs("learner.loss", "learner.grad_norm", "reference.loss"), None
    )

    rows = pool.take(ids, ["x", "y"])
    learner = classifier().score(rows, frozenset({"loss", "grad_norm"}))
    reference = classifier(3).score(rows, frozenset({"loss"}))
    assert_equal(
        features,
        {
            "learner.loss": learner["loss"],
            "learner.grad_norm": learner["grad_norm"],
            "reference.loss": reference["loss"],
        },
    )
    assert seconds > 0.0
    assert num_scored == {"learner": 4, "reference": 4}


def test_one_forward_pass_computes_all_that_is_asked_of_a_model(
    pool: MemoryPool,
) -> None:
    model = classifier()
    calls = calls_of(model)

    features, _, _ = ScoringWorker(pool, learner=model).score(
        np.arange(16), needs(*(f"learner.{name}" for name in OUTPUTS)), None
    )

    assert features.keys() == {f"learner.{name}" for name in OUTPUTS}
    assert len(calls) == 1


def test_what_is_no_models_output_is_left_to_others(pool: MemoryPool) -> None:
    worker = ScoringWorker(pool, learner=classifier())

    features, _, num_scored = worker.score(
        np.arange(4), needs("memory", "pool.y", "reference.loss"), None
    )

    assert features == {}
    assert num_scored == {}


def test_models_of_all_kinds_work_side_by_side(pool: MemoryPool) -> None:
    lm = scorer(
        "small_models:language_model", CausalLMHead(tokens="words"), columns=["words"]
    )
    module: Any = lm._hosted.module
    forward = module.forward
    module.forward = lambda batch: forward({"tokens": batch["words"]})
    worker = ScoringWorker(pool, learner=lm, reference=scorer())
    ids = np.arange(5)

    features, _, _ = worker.score(
        ids, needs("learner.projection", "reference.embeddings"), None
    )

    assert features["learner.projection"].shape == (5, 1024)
    reference = features["reference.embeddings"]
    assert isinstance(reference, PairEmbeddings)
    expected = embed(scorer(), pool.take(ids, two_tower.COLUMNS))
    np.testing.assert_array_equal(reference.queries, expected.queries)


def test_the_learner_is_that_of_the_snapshot(pool: MemoryPool, tmp_path: Path) -> None:
    worker, ids = ScoringWorker(pool, learner=classifier()), np.arange(10)
    path = tmp_path / "w.safetensors"
    write_weights(path, small_models.classifier(seed=5))

    worker.check_snapshot(path)
    found, _, _ = worker.score(ids, needs("learner.loss"), path)

    other = ScoringWorker(pool, learner=classifier(5))
    assert_equal(found, other.score(ids, needs("learner.loss"), None)[0])


def test_without_a_learner_there_is_nothing_to_publish_to(
    pool: MemoryPool, tmp_path: Path
) -> None:
    with pytest.raises(SnapshotError, match="scores with no learner"):
        ScoringWorker(pool, reference=classifier()).check_snapshot(tmp_path)


# --- the cache ---


def test_what_was_scored_is_not_scored_again(pool: MemoryPool, tmp_path: Path) -> None:
    wanted = needs("reference.loss", "reference.entropy")
    first = ScoringWorker(
        pool, reference=classifier(), reference_cache=stores(tmp_path, *OUTPUTS)
    )
    again = ScoringWorker(
        pool, reference=classifier(), reference_cache=stores(tmp_path, *OUTPUTS)
    )
    plain = ScoringWorker(pool, reference=classifier())
    ids = np.array([20, 3, 41, 2])

    assert first.score(ids, wanted, None)[2] == {"reference": 4}
    more = np.array([41, 50, 3, 51, 20])
    features, _, num_scored = again.score(more, wanted, None)

    assert num_scored == {"reference": 2}
    assert_equal(features, plain.score(more, wanted, None)[0])
    assert again.score(more, wanted, None)[2] == {"reference": 0}
    assert_equal(again.score(more, wanted, None)[0], features)


def test_an_output_that_is_new_is_computed_and_the_others_are_read(
    pool: MemoryPool, tmp_path: Path
) -> None:
    model, ids = classifier(), np.arange(10, 26)
    cache = stores(tmp_path, *OUTPUTS)
    cache["loss"].put(ids, np.arange(16, dtype=np.float32))  # not what it computes
    worker = ScoringWorker(pool, reference=model, reference_cache=cache)
    calls = calls_of(model)

    wanted = needs(*(f"reference.{name}" for name in OUTPUTS))
    features, _, num_scored = worker.score(ids, wanted, None)

    plain = ScoringWorker(pool, reference=classifier())
    expected = {**plain.score(ids, wanted, None)[0]}
    assert_equal(features, {**expected, "reference.loss": np.arange(16)})
    assert num_scored == {"reference": 16}
    assert len(calls) == 1
    assert worker.score(ids, wanted, None)[2] == {"reference": 0}


def test_an_example_without_a_finite_output_is_scored_each_time(
    pool: MemoryPool, tmp_path: Path
) -> None:
    worker = ScoringWorker(
        pool, reference=classifier(), reference_cache=stores(tmp_path, "loss")
    )
    ids = np.array([6, 7, 8])

    worker.score(ids, needs("reference.loss"), None)
    features, _, num_scored = worker.score(ids, needs("reference.loss"), None)

    losses = features["reference.loss"]
    assert isinstance(losses, np.ndarray)
    assert np.isnan(losses).tolist() == [False, True, False]
    assert num_scored == {"reference": 1}


def test_embeddings_are_cached_like_numbers(pool: MemoryPool, tmp_path: Path) -> None:
    worker = ScoringWorker(
        pool, reference=scorer(), reference_cache=stores(tmp_path, "embeddings")
    )
    plain = ScoringWorker(pool, reference=scorer())
    wanted = needs("reference.embeddings")
    worker.score(np.array([5, 3]), wanted, None)

    ids = np.array([3, 4, 5])
    features, _, num_scored = worker.score(ids, wanted, None)

    assert_equal(features, plain.score(ids, wanted, None)[0])
    assert num_scored == {"reference": 1}


def test_an_output_without_a_store_is_computed_each_time(pool: MemoryPool) -> None:
    worker = ScoringWorker(pool, reference=classifier())

    for _ in range(2):
        _, _, num_scored = worker.score(np.arange(3), needs("reference.loss"), None)
        assert num_scored == {"reference": 3}


# --- tables ---


def table_of(folder: Path, ids: list[int]) -> ScoreTable:
    path = folder / "t.parquet"
    pq.write_table(pa.table({"example_id": ids, "loss": np.sqrt(ids)}), path)
    return ScoreTable(path)


def test_a_table_is_looked_up_and_costs_no_forward_pass(
    pool: MemoryPool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(tmp_path, list(range(NUM_EXAMPLES)))
    worker = ScoringWorker(pool, learner=classifier(), reference=table)

    features, _, num_scored = worker.score(
        np.array([9, 4]), needs("learner.loss", "reference.loss"), None
    )

    np.testing.assert_array_equal(features["reference.loss"], [3.0, 2.0])  # pyright: ignore[reportArgumentType]  # an array
    assert num_scored == {"learner": 2, "reference": 0}
    assert caplog.text == ""


def test_examples_that_a_table_lacks_are_counted_and_nan(
    pool: MemoryPool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = ScoringWorker(pool, reference=table_of(tmp_path, [4, 9, 60, 61]))

    features, _, _ = worker.score(np.array([9, 5]), needs("reference.loss"), None)

    np.testing.assert_array_equal(features["reference.loss"], [3.0, np.nan])  # pyright: ignore[reportArgumentType]  # an array
    assert "no row for 58 of the pool's 60 examples" in caplog.text
