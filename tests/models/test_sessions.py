"""Whole sessions that are scored by models of each kind.

Every step offers the whole pool, so that what is chosen can be said from outside.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_models
from scorers import compute, lists_of, scorer
from torch import nn
from worlds import nudge

import curator
from curator import Config, ModelSpec, ServerSpec, SessionSpec
from curator.client import Service, Session
from curator.errors import ConfigError
from curator.models import CausalLMHead, ClassifierHead, write_weights
from curator.policies import TopK
from curator.pools import MemoryPool

NUM_EXAMPLES = 32
HARD = SessionSpec(
    pool="p",
    batch_size=8,
    super_batch_size=NUM_EXAMPLES,
    policy=TopK(loss="scalar", score="hard_learner"),
    learner="classes",
)
RHO = dataclasses.replace(
    HARD, policy=TopK(loss="scalar", score="learnability"), reference="table"
)
CLASSIFIER: dict[str, Any] = {
    "factory": "small_models:classifier",
    "columns": ["x"],
    "micro_batch_size": 16,
}
WORDS: dict[str, Any] = {
    "factory": "small_models:language_model",
    "columns": ["tokens"],
    "micro_batch_size": 16,
}


def examples() -> pa.Table:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, small_models.VOCABULARY, (NUM_EXAMPLES, 6))
    return pa.table(
        {
            "x": lists_of(rng.standard_normal((NUM_EXAMPLES, 16), np.float32)),
            "y": rng.integers(0, 16, NUM_EXAMPLES),
            "tokens": lists_of(tokens),
        }
    )


def local(folder: Path, **sessions: SessionSpec) -> Service:
    config = Config(
        server=ServerSpec(state_dir=str(folder / "state")),
        models={
            "classes": ModelSpec(kind="classifier", label="y", **CLASSIFIER),
            "words": ModelSpec(kind="causal_lm", tokens="tokens", **WORDS),
            "unlabelled": ModelSpec(kind="classifier", label="z", **CLASSIFIER),
            "table": ModelSpec(kind="table", path=str(folder / "table.parquet")),
        },
        sessions=sessions,
    )
    return curator.local(config, pools={"p": MemoryPool(examples())})


def write_table(folder: Path, ids: np.ndarray, name: str = "loss") -> np.ndarray:
    """Writes a table of random losses; returns them by id, NaN for other ids."""
    losses = np.random.default_rng(1).exponential(size=len(ids))
    table = pa.table({"example_id": ids, name: losses})
    pq.write_table(table, folder / "table.parquet")
    by_id = np.full(NUM_EXAMPLES, np.nan)
    by_id[ids] = losses
    return by_id


def losses_of(model: nn.Module, head: Any, given: dict[str, Any], folder: Path):
    """The loss of every example, of a model as it is now."""
    write_weights(folder / "now.safetensors", model)
    now = scorer(head=head, weights=folder / "now.safetensors", **given)
    return compute(now, examples().to_batches()[0], "loss")["loss"]


def train(session: Session, model: nn.Module, num_steps: int):
    """Trains; yields each batch while the model is the one that scored it."""
    session.publish(model)
    for batch in session.batches():
        yield batch
        if batch.step == num_steps - 1:
            return  # unreported, so that no other step is scored
        nudge(model, batch.step)
        session.publish(model)
        session.report(batch)


def test_a_classifier_gives_the_examples_with_the_highest_loss(tmp_path: Path) -> None:
    model, head = small_models.classifier(seed=5), ClassifierHead(label="y")

    with local(tmp_path, s=HARD) as service:
        session = service.open("s")
        chosen: list[set[int]] = []
        for batch in train(session, model, 4):
            losses = losses_of(model, head, CLASSIFIER, tmp_path)
            best = np.argsort(-losses)[:8]
            chosen.append(set(batch.ids.tolist()))
            assert chosen[-1] == set(best.tolist())
            np.testing.assert_array_equal(np.sort(batch.scores), np.sort(losses[best]))
        assert session.describe().cost["num_learner_scored"] == 4 * NUM_EXAMPLES

    assert chosen[0] != chosen[3]  # the learner has changed


def test_learnability_is_the_loss_above_the_tables(tmp_path: Path) -> None:
    model, head = small_models.classifier(seed=5), ClassifierHead(label="y")
    ids = np.random.default_rng(2).permutation(NUM_EXAMPLES)[:20]
    irreducible = write_table(tmp_path, ids)

    with local(tmp_path, s=RHO) as service:
        session = service.open("s")
        for batch in train(session, model, 3):
            losses = losses_of(model, head, CLASSIFIER, tmp_path)
            order = np.argsort(irreducible - losses)  # examples without a row are last
            assert set(batch.ids.tolist()) == set(order[:8].tolist())
        cost = session.describe().cost

    assert cost["num_reference_scored"] == 0
    assert cost["num_quarantined"] == 3 * 12


def test_a_language_model_is_a_learner_and_its_reference_is_cached(
    tmp_path: Path,
) -> None:
    model, head = small_models.language_model(seed=5), CausalLMHead(tokens="tokens")
    spec = dataclasses.replace(RHO, learner="words", reference="words")
    untrained = compute(scorer(head=head, **WORDS), examples().to_batches()[0], "loss")[
        "loss"
    ]

    with local(tmp_path, s=spec) as service:
        session = service.open("s")
        for batch in train(session, model, 3):
            excess = losses_of(model, head, WORDS, tmp_path) - untrained
            assert set(batch.ids.tolist()) == set(np.argsort(-excess)[:8].tolist())
        cost = session.describe().cost

    assert cost["num_learner_scored"] == 3 * NUM_EXAMPLES
    assert cost["num_reference_scored"] == NUM_EXAMPLES
    assert len(list((tmp_path / "state" / "features").glob("*/loss/rows"))) == 1


def test_a_table_without_what_is_needed_is_told(tmp_path: Path) -> None:
    write_table(tmp_path, np.arange(4), "entropy")

    with (
        local(tmp_path, s=RHO) as service,
        pytest.raises(
            ConfigError, match=r"needs reference.loss; model 'table' gives entropy"
        ),
    ):
        service.open("s")


def test_a_label_that_the_pool_lacks_is_told_before_anything_is_scored(
    tmp_path: Path,
) -> None:
    spec = dataclasses.replace(HARD, learner="unlabelled")

    with (
        local(tmp_path, s=spec) as service,
        pytest.raises(
            ConfigError, match=r"models.unlabelled.label: pool 'p' has no 'z'"
        ),
    ):
        service.open("s")
