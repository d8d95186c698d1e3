from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import compute, lists_of, scorer

from curator.config import ModelSpec
from curator.errors import ScoringError
from curator.models import ClassifierHead, ModuleScorer, build_scorer, write_weights

OUTPUTS = ("loss", "grad_norm", "entropy")


def expected(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs by their definitions, row by row in float64."""
    found: dict[str, list[float]] = {name: [] for name in OUTPUTS}
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        shifted = np.exp(row - row.max())
        probabilities = shifted / shifted.sum()
        onehot = np.eye(len(row))[int(label)]
        positive = probabilities[probabilities > 0]
        log_total = np.log(shifted.sum()) + row.max()
        found["loss"].append(log_total - row[int(label)])
        found["grad_norm"].append(float(np.linalg.norm(probabilities - onehot)))
        found["entropy"].append(float(-(positive * np.log(positive)).sum()))
    return {name: np.array(values) for name, values in found.items()}


def rows_of(logits: np.ndarray, labels: Any) -> pa.RecordBatch:
    return pa.record_batch({"x": lists_of(logits), "y": pa.array(labels)})


def told(under: str | None = None, **changes: Any) -> ModuleScorer:
    """A scorer whose logits are the column ``x`` itself."""
    args = {"column": "x", "under": under}
    given = {"args": args, "columns": ["x"], "micro_batch_size": 4, **changes}
    return scorer("small_models:given", ClassifierHead(label="y"), **given)


def trained(**changes: Any) -> ModuleScorer:
    given = {"columns": ["x"], **changes}
    return scorer("small_models:classifier", ClassifierHead(label="y"), **given)


def random_rows(num_rows: int, seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((num_rows, 16), np.float32)
    return rows_of(values, rng.integers(0, 16, num_rows))


# --- what comes out ---


@pytest.mark.parametrize("under", [None, "logits"])
@pytest.mark.parametrize("num_rows", [1, 4, 11])
def test_outputs_are_their_definitions(under: str | None, num_rows: int) -> None:
    rng = np.random.default_rng(num_rows)
    logits = (5 * rng.standard_normal((num_rows, 7))).astype(np.float32)
    labels = rng.integers(0, 7, num_rows)

    found = compute(told(under), rows_of(logits, labels))

    assert found.keys() == set(OUTPUTS)
    for name, values in expected(logits, labels).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_finite_logits_give_finite_outputs_within_their_bounds(
    rows: list[tuple[list[float], int]],
) -> None:
    logits = np.array([row for row, _ in rows], np.float32)
    labels = np.array([label for _, label in rows])

    found = compute(told(), rows_of(logits, labels))

    for name, values in expected(logits, labels).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=2e-5)
    assert (found["loss"] >= 0).all()
    assert ((found["grad_norm"] >= 0) & (found["grad_norm"] <= 1.4143)).all()
    assert ((found["entropy"] >= 0) & (found["entropy"] <= 1.0987)).all()


def test_only_what_is_asked_for_is_returned() -> None:
    rows = random_rows(5)
    whole = compute(trained(), rows)

    for name in OUTPUTS:
        (found,) = compute(trained(), rows, name).items()
        assert found[0] == name
        assert np.array_equal(found[1], whole[name])


def test_another_output_is_a_programmers_mistake() -> None:
    with pytest.raises(ValueError, match=r"computes entropy, .*, loss; got embeddings"):
        trained().score(random_rows(2), frozenset({"embeddings"}))


def test_a_confident_model_keeps_its_digits() -> None:
    logits = np.array([[30.0, 0.0], [1e4, -1e4], [0.0, 1e4]], np.float32)

    found = compute(told(), rows_of(logits, [0, 0, 0]))

    wrong = np.exp(-30.0)
    np.testing.assert_allclose(found["grad_norm"][0], np.sqrt(2) * wrong, rtol=1e-5)
    np.testing.assert_array_equal(found["loss"][1:], [0.0, 1e4])
    np.testing.assert_array_equal(found["entropy"][1:], [0.0, 0.0])
    np.testing.assert_allclose(found["grad_norm"][2], np.sqrt(2), rtol=1e-6)


def test_classes_that_are_ruled_out_count_as_nothing() -> None:
    logits = np.array([[1.0, -np.inf, 2.0]], np.float32)

    found = compute(told(), rows_of(logits, [2]))

    for name, values in expected(logits, np.array([2])).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_without_a_distribution_leaves_the_others_alone(bad: float) -> None:
    logits = np.ones((5, 3), np.float32)
    logits[2, 1] = bad

    found = compute(told(), rows_of(logits, [0] * 5))

    for name in OUTPUTS:
        assert np.isfinite(found[name]).tolist() == [True, True, False, True, True]


def test_a_half_model_has_its_softmax_in_float32() -> None:
    logits = np.array([[8.0, 8.0, 0.25], [-16.0, 4.0, 4.0]], np.float32)  # exact
    labels = np.array([2, 0])

    found = compute(told(dtype="bfloat16"), rows_of(logits, labels))

    for name, values in expected(logits, labels).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


def test_half_precision_is_near_float32() -> None:
    rows = random_rows(20)

    half, full = compute(trained(dtype="bfloat16"), rows), compute(trained(), rows)

    for name in OUTPUTS:
        np.testing.assert_allclose(half[name], full[name], atol=0.2)
        assert not np.array_equal(half[name], full[name])


# --- rows and micro-batches ---


def test_a_row_has_the_same_bits_whichever_rows_it_is_scored_with() -> None:
    rows, model = random_rows(50), trained()
    together = compute(model, rows)

    chosen = np.random.default_rng(1).permutation(50)[:21]
    apart = compute(model, rows.take(pa.array(chosen)))

    for name in OUTPUTS:
        assert np.array_equal(apart[name], together[name][chosen])


def test_what_the_module_does_to_its_input_does_not_reach_the_labels() -> None:
    rows = random_rows(6)

    found = compute(trained(columns=["x", "y"]), rows)

    assert np.array_equal(found["loss"], compute(trained(), rows)["loss"])


def test_out_of_memory_halves_the_micro_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = random_rows(21)

    found = compute(trained(args={"max_rows": 5}), rows)

    for name, values in compute(trained(micro_batch_size=4), rows).items():
        assert np.array_equal(found[name], values)
    assert "micro_batch_size = 8; continuing with 4" in caplog.text


# --- labels ---


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.uint16(), pa.int32(), pa.uint64()]
)
def test_labels_are_any_integers(kind: pa.DataType) -> None:
    logits = np.eye(3, dtype=np.float32)
    labels = [2, 0, 1]

    found = compute(told(), rows_of(logits, pa.array(labels, kind)))

    np.testing.assert_allclose(
        found["loss"], expected(logits, np.array(labels))["loss"], rtol=1e-6
    )


def test_booleans_are_two_classes() -> None:
    logits = np.array([[0.0, 3.0], [0.0, 3.0]], np.float32)

    found = compute(told(), rows_of(logits, [True, False]))

    np.testing.assert_allclose(np.diff(found["loss"]), 3.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, -1, 3], r"has 3 classes; label column 'y' has -1, 3; .* in \[0, 3\)"),
        ([9, 7, 6, 5, 4, 3, 8, 3], r"'y' has 3, 4, 5, 6, 7, \.\.\.; expected"),
        ([0.0, 1.0], r"'y' is float32 \[8\]; expected one integer per example"),
        (["a", "b"], "'y' is a list; expected one integer"),
        ([[0, 1]], "'y' is a list; expected one integer"),
        (lists_of(np.array([[0, 1]])), r"'y' is int64 \[8, 2\]; expected one integer"),
        ([0, None], "reads 'y', and 1 of 2 rows have a null there"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels: Any, message: str) -> None:
    logits = np.zeros((len(labels), 3), np.float32)

    with pytest.raises(ScoringError, match=message):
        compute(told(micro_batch_size=8), rows_of(logits, labels))


def test_a_missing_label_column_says_which_ones_there_are() -> None:
    rows = pa.record_batch({"x": lists_of(np.zeros((2, 3), np.float32))})

    with pytest.raises(ScoringError, match="reads 'y'; the rows have: x"):
        compute(told(), rows)


# --- logits ---


@pytest.mark.parametrize(
    ("column", "under", "message"),
    [
        (pa.array(np.ones(2, np.float32)), None, r"logits as float32 \[4\]; expected"),
        (lists_of(np.ones((2, 3), np.int32)), None, r"logits as int32 \[4, 3\]"),
        (
            lists_of(np.ones((2, 3), np.float32)),
            "logit",
            r"a mapping of 'logit', .*; lo",
        ),
        (pa.array(["a", "b"]), None, "logits as a list; expected a floating-point"),
    ],
)
def test_other_logits_than_promised_are_named(
    column: pa.Array, under: str | None, message: str
) -> None:
    rows = pa.record_batch({"x": column, "y": [0, 0]})

    with pytest.raises(ScoringError, match=message):
        compute(told(under), rows)


def test_too_few_rows_of_logits_are_named() -> None:
    model = told(args={"column": "x", "drop": 1})

    with pytest.raises(ScoringError, match=r"float32 \[3, 16\]; .*shape \[4, C\]"):
        compute(model, random_rows(3))


# --- the model ---


def test_it_is_a_scorer_of_what_module_and_head_read() -> None:
    model = trained()

    assert list(model.columns) == ["x", "y"]
    assert list(trained(columns=["y", "x"]).columns) == ["y", "x"]
    assert model.outputs == set(OUTPUTS)


def test_published_weights_are_scored_with(tmp_path: Path) -> None:
    path, rows, model = tmp_path / "w.safetensors", random_rows(9), trained()
    write_weights(path, small_models.classifier(seed=7))
    before = compute(model, rows)

    model.load(path)

    after = compute(model, rows)
    same = compute(trained(args={"seed": 7}), rows)
    for name in OUTPUTS:
        assert np.array_equal(after[name], same[name])
        assert not np.array_equal(after[name], before[name])
    assert model.fingerprint == trained(weights=path).fingerprint


def test_kind_and_label_are_part_of_the_fingerprint() -> None:
    models = [
        trained(),
        scorer("small_models:classifier", columns=["x"]),
        scorer("small_models:classifier", ClassifierHead(label="z"), columns=["x"]),
    ]

    assert len({model.fingerprint for model in models}) == len(models)
    assert trained().fingerprint == trained().fingerprint


def test_it_is_built_from_its_specification() -> None:
    spec = ModelSpec(
        kind="classifier",
        factory="small_models:classifier",
        columns=["x"],
        label="y",
        micro_batch_size=16,
    )

    model = build_scorer(spec)

    assert model.outputs == spec.outputs
    assert model.fingerprint == trained().fingerprint
