from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import small_models
import torch
from scorers import compute, lists_of, scorer

from curator.config import ModelSpec
from curator.errors import ScoringError
from curator.models import (
    CausalLMHead,
    ModuleScorer,
    _causal_lm,
    build_scorer,
    write_weights,
)
from curator.models._spectral import projections

LENGTH, VOCABULARY = 11, small_models.VOCABULARY
OUTPUTS = (
    *("loss", "perplexity", "entropy"),
    *("nuclear_norm", "projection", "num_tokens"),
)


def rows_of(num_rows: int, seed: int = 0, *, length: int = LENGTH) -> pa.RecordBatch:
    """Rows of tokens and of a mask, after a prompt of random length."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCABULARY, (num_rows, length), np.int32)
    mask = np.arange(length) >= rng.integers(1, length - 1, num_rows)[:, None]
    return pa.record_batch({"tokens": lists_of(tokens), "mask": lists_of(mask)})


def given_rows(
    states: np.ndarray, tokens: np.ndarray, mask: np.ndarray
) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "x": pa.FixedShapeTensorArray.from_numpy_ndarray(states),
            "tokens": lists_of(tokens),
            "mask": lists_of(mask),
        }
    )


HEAD = CausalLMHead(tokens="tokens", mask="mask")


def lm(returns: str = "hidden", head: CausalLMHead = HEAD, **changes: Any):
    args = {"returns": returns, **changes.pop("args", {})}
    given = {"args": args, "columns": ["tokens"], **changes}
    return scorer("small_models:language_model", head, **given)


def told(under: str, width: int | None = None, **changes: Any) -> ModuleScorer:
    """A scorer whose logits, or hidden states, are the column ``x`` itself."""
    given = {
        "args": {"column": "x", "under": under, "width": width},
        "columns": ["x"],
        "micro_batch_size": 4,
        **changes,
    }
    return scorer("small_models:given", HEAD, **given)


def expected(
    logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray
) -> dict[str, list[Any]]:
    """The outputs by their definitions, token by token in float64."""
    found: dict[str, list[Any]] = {name: [] for name in OUTPUTS}
    for matrix, words, wanted in zip(
        logits.astype(np.float64), tokens, mask, strict=True
    ):
        targets = [t for t in range(1, len(words)) if wanted[t]]
        losses: list[float] = []
        entropies: list[float] = []
        for target in targets:
            row = matrix[target - 1]
            log_probs = row - row.max() - np.log(np.exp(row - row.max()).sum())
            losses.append(-log_probs[words[target]])
            probs = np.exp(log_probs)
            entropies.append(-(probs[probs > 0] * log_probs[probs > 0]).sum())
        chosen = matrix[[target - 1 for target in targets]]
        found["loss"].append(np.mean(losses) if losses else np.nan)
        found["perplexity"].append(np.exp(found["loss"][-1]))
        found["entropy"].append(np.mean(entropies) if losses else np.nan)
        singular = np.linalg.svd(chosen, compute_uv=False) if losses else [np.nan]
        found["nuclear_norm"].append(np.sum(singular))
        found["num_tokens"].append(len(targets))
    mask_next = torch.tensor(mask)[:, 1:].bool()
    found["projection"] = list(
        np.where(
            mask_next.any(dim=1, keepdim=True).numpy(),
            projections(torch.tensor(logits)[:, :-1], mask_next).numpy(),
            np.nan,
        )
    )
    return found


def logits_of(model: ModuleScorer, rows: pa.RecordBatch) -> np.ndarray:
    """All logits at once, as the module's own head makes them."""
    module: Any = model._hosted.module
    tokens = torch.tensor(rows.column("tokens").to_pylist())
    with torch.inference_mode():
        returned = module({"tokens": tokens})
        hidden = returned.get("hidden")
        return (
            returned["logits"] if hidden is None else module.lm_head(hidden)
        ).numpy()


def columns_of(rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array(rows.column("tokens").to_pylist()),
        np.array(rows.column("mask").to_pylist()),
    )


# --- what comes out ---


@pytest.mark.parametrize(
    ("returns", "args"),
    [
        ("logits", {}),
        ("hidden", {}),
        ("hidden", {"bias": False}),
        ("hidden", {"tied": True}),
    ],
)
def test_outputs_are_their_definitions(returns: str, args: dict[str, Any]) -> None:
    rows, model = rows_of(21), lm(returns, args=args)
    tokens, mask = columns_of(rows)

    found = compute(model, rows)

    assert found.keys() == set(OUTPUTS)
    for name, values in expected(logits_of(model, rows), tokens, mask).items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-5)


def test_without_a_mask_every_token_but_the_first_is_supervised() -> None:
    rows = rows_of(5)
    everything = rows.set_column(1, "mask", lists_of(np.ones((5, LENGTH), np.int8)))

    found = compute(lm(head=CausalLMHead(tokens="tokens")), rows.select(["tokens"]))

    assert found["num_tokens"].tolist() == [LENGTH - 1] * 5
    for name, values in compute(lm(), everything).items():
        assert np.array_equal(found[name], values)


def test_the_token_at_a_position_is_predicted_by_the_output_before_it() -> None:
    logits = np.zeros((1, 4, 3), np.float32)
    logits[0, 1, 2] = 50.0  # at position 1: the next token, at 2, is a 2
    tokens = np.array([[0, 1, 2, 0]])
    for mask, loss in (([[0, 0, 1, 0]], 0.0), ([[0, 1, 0, 0]], np.log(3))):
        rows = given_rows(logits, tokens, np.array(mask, np.uint8))

        found = compute(told("logits"), rows, "loss", "num_tokens")

        np.testing.assert_allclose(found["loss"], [loss], atol=1e-6)
        assert found["num_tokens"] == [1.0]


def test_the_first_token_is_never_predicted() -> None:
    rows = given_rows(
        np.zeros((2, 3, 4), np.float32),
        np.zeros((2, 3), np.int64),
        np.array([[1, 0, 0], [1, 1, 0]]),
    )

    assert compute(told("logits"), rows)["num_tokens"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("under", ["logits", "hidden"])
def test_an_example_without_supervised_tokens_is_nan(under: str) -> None:
    rng = np.random.default_rng(0)
    mask = np.ones((5, 4), np.bool_)
    mask[3, 1:] = False
    states = rng.standard_normal((5, 4, 8)).astype(np.float32)
    rows = given_rows(states, np.zeros((5, 4), np.int64), mask)

    found = compute(told(under, 8), rows)

    assert found.pop("num_tokens").tolist() == [3, 3, 3, 0, 3]
    for values in found.values():
        assert np.isnan(values[3]).all()
        assert np.isfinite(np.delete(values, 3, axis=0)).all()


@pytest.mark.parametrize("under", ["logits", "hidden"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_supervised_position_without_a_distribution_spoils_its_row_alone(
    under: str, bad: float
) -> None:
    states = np.ones((3, 4, 8), np.float32)
    states[1, 2, 5] = bad
    mask = np.ones((3, 4), np.bool_)
    rows = given_rows(states, np.zeros((3, 4), np.int64), mask)

    found = compute(told(under, 8), rows, "loss", "entropy", "nuclear_norm")

    for values in found.values():
        assert np.isfinite(values).tolist() == [True, False, True]


@pytest.mark.parametrize("under", ["logits", "hidden"])
def test_what_lies_at_unsupervised_positions_does_not_matter(under: str) -> None:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((4, 6, 8)).astype(np.float32)
    tokens = rng.integers(0, 8, (4, 6))
    mask = np.zeros((4, 6), np.bool_)
    mask[:, 2:4] = True
    # Position 1 predicts token 2, and 2 predicts 3; the rest is padding.
    other_states, other_tokens = states.copy(), tokens.copy()
    other_states[:, [0, 3, 4, 5]] = np.nan
    other_tokens[:, [0, 1, 4, 5]] = -100

    found = compute(told(under, 8), given_rows(states, tokens, mask))
    other = compute(told(under, 8), given_rows(other_states, other_tokens, mask))

    for name in OUTPUTS:
        assert np.array_equal(found[name], other[name])


@pytest.mark.parametrize("returns", ["logits", "hidden"])
def test_only_what_is_asked_for_is_returned(returns: str) -> None:
    rows = rows_of(5)
    whole = compute(lm(returns), rows)

    for name in OUTPUTS:
        found = compute(lm(returns), rows, name)
        assert list(found) == [name]
        assert np.array_equal(found[name], whole[name])


@pytest.mark.parametrize("returns", ["logits", "hidden"])
def test_half_precision_is_near_float32(returns: str) -> None:
    rows = rows_of(20)

    half, full = compute(lm(returns, dtype="bfloat16"), rows), compute(lm(), rows)

    for name in ("loss", "entropy"):
        np.testing.assert_allclose(half[name], full[name], atol=0.05)
        assert not np.array_equal(half[name], full[name])
    np.testing.assert_allclose(half["nuclear_norm"], full["nuclear_norm"], rtol=0.05)


def test_a_half_head_takes_hidden_states_in_float32() -> None:
    states = np.ones((2, 4, 8), np.float32)
    rows = given_rows(states, np.zeros((2, 4), np.int64), np.ones((2, 4), np.bool_))
    model = told("hidden", 8, dtype="bfloat16")
    module: Any = model._hosted.module
    forward = module.forward
    module.forward = lambda batch: {"hidden": forward(batch)["hidden"].float()}

    found = compute(model, rows)

    np.testing.assert_allclose(
        found["loss"], compute(told("hidden", 8), rows)["loss"], atol=0.02
    )


def test_a_softmax_of_half_logits_is_taken_in_float32() -> None:
    logits = np.array([[[8.0, 8.0, 0.25], [0.0, 0.0, 0.0]]], np.float32)  # exact
    tokens, mask = np.array([[0, 2]]), np.ones((1, 2), np.bool_)

    found = compute(told("logits", dtype="bfloat16"), given_rows(logits, tokens, mask))

    for name, values in expected(logits, tokens, mask).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


# --- blocks, rows and micro-batches ---


@pytest.mark.parametrize("per_block", [1, 3, 4])
@pytest.mark.parametrize("returns", ["logits", "hidden"])
def test_blocks_of_positions_give_what_all_at_once_gives(
    monkeypatch: pytest.MonkeyPatch, returns: str, per_block: int
) -> None:
    rows = rows_of(9)
    whole = compute(lm(returns), rows, "loss", "entropy")
    entries = per_block * 16 * VOCABULARY
    monkeypatch.setattr(_causal_lm, "_BLOCK_ENTRIES", entries)

    found = compute(lm(returns), rows, "loss", "entropy")

    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_all_logits_never_exist_at_once_and_none_for_what_nobody_supervises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(16)
    mask = np.zeros((16, LENGTH), np.bool_)
    mask[3, 4] = mask[7, 9] = True  # predicted by positions 3 and 8
    rows = rows.set_column(1, "mask", lists_of(mask))
    monkeypatch.setattr(_causal_lm, "_BLOCK_ENTRIES", 2 * 16 * VOCABULARY)
    model = lm()
    module: Any = model._hosted.module
    shapes: list[tuple[int, ...]] = []
    module.lm_head.register_forward_hook(
        lambda _, __, output: shapes.append(tuple(output.shape))
    )

    compute(model, rows, "loss")

    assert shapes == [(16, 2, VOCABULARY)] * 2
    compute(model, rows, "nuclear_norm", "projection", "num_tokens")
    assert len(shapes) == 2


@pytest.mark.parametrize("returns", ["logits", "hidden"])
def test_a_row_has_the_same_bits_whichever_rows_it_is_scored_with(
    monkeypatch: pytest.MonkeyPatch, returns: str
) -> None:
    monkeypatch.setattr(_causal_lm, "_BLOCK_ENTRIES", 2 * 16 * VOCABULARY)
    rows, model = rows_of(50), lm(returns)
    together = compute(model, rows)

    chosen = np.random.default_rng(1).permutation(50)[:21]
    apart = compute(model, rows.take(pa.array(chosen)))

    for name in OUTPUTS:
        assert np.array_equal(apart[name], together[name][chosen])


def test_out_of_memory_halves_the_micro_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = rows_of(21)

    found = compute(lm(args={"max_rows": 5}), rows)

    for name, values in compute(lm(micro_batch_size=4), rows).items():
        assert np.array_equal(found[name], values)
    assert "micro_batch_size = 8; continuing with 4" in caplog.text


def test_memory_that_the_output_head_lacks_halves_the_micro_batch() -> None:
    model = lm()
    module: Any = model._hosted.module
    sizes: list[int] = []

    def hungry(_: Any, given: tuple[torch.Tensor]) -> None:
        sizes.append(len(given[0]))
        if len(given[0]) > 8:
            torch.empty(2**50, dtype=torch.uint8)

    module.lm_head.register_forward_pre_hook(hungry)

    found = compute(model, rows_of(16), "loss")

    assert sizes == [16, 8, 8]
    assert np.isfinite(found["loss"]).all()


# --- weights ---


def test_published_weights_are_scored_with_output_head_and_all(tmp_path: Path) -> None:
    path, rows, model = tmp_path / "w.safetensors", rows_of(9), lm()
    write_weights(path, small_models.language_model(seed=7))
    before = compute(model, rows)

    model.load(path)

    after = compute(model, rows)
    same = compute(lm(args={"seed": 7}), rows)
    for name in set(OUTPUTS) - {"num_tokens"}:
        assert np.array_equal(after[name], same[name])
        assert not np.array_equal(after[name], before[name])


def test_the_head_is_gone_through_once_per_load_and_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    geometry = _causal_lm.LogitGeometry
    monkeypatch.setattr(
        _causal_lm, "LogitGeometry", lambda *args: made.append(0) or geometry(*args)
    )
    path, rows, model = tmp_path / "w.safetensors", rows_of(40), lm()
    write_weights(path, small_models.language_model(seed=7))

    compute(model, rows, "loss", "entropy", "num_tokens")
    assert len(made) == 0
    compute(model, rows)
    compute(model, rows, "projection")
    assert len(made) == 1
    model.load(path)
    compute(model, rows, "nuclear_norm")
    assert len(made) == 2


def test_kind_and_columns_are_part_of_the_fingerprint() -> None:
    heads = [HEAD, CausalLMHead(tokens="tokens"), CausalLMHead(tokens="t", mask="mask")]

    assert len({lm(head=head).fingerprint for head in heads}) == len(heads)


@pytest.mark.parametrize("mask", [None, "mask"])
def test_it_is_built_from_its_specification(mask: str | None) -> None:
    spec = ModelSpec(
        kind="causal_lm",
        factory="small_models:language_model",
        args={"returns": "hidden"},
        columns=["tokens"],
        tokens="tokens",
        mask=mask,
    )

    model = build_scorer(spec)

    assert model.outputs == spec.outputs == set(OUTPUTS)
    assert list(model.columns) == ["tokens", *([mask] if mask else [])]
    head = CausalLMHead(tokens="tokens", mask=mask)
    assert model.fingerprint == lm(head=head).fingerprint


# --- what does not fit ---


def test_tokens_out_of_the_vocabulary_are_named_where_they_are_supervised() -> None:
    logits = np.zeros((2, 4, 8), np.float32)
    tokens = np.array([[99, 0, 8, 0], [0, -1, 9, -100]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])

    with pytest.raises(
        ScoringError,
        match=r"vocabulary of 8; column 'tokens' has the supervised tokens -1, 8; exp",
    ):
        compute(told("logits"), given_rows(logits, tokens, mask))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokens": pa.array([[1, 2], [3]])},
            r"column 'tokens' is a list; expected integers \[b, L\]",
        ),
        ({"tokens": pa.array([1, 2])}, r"'tokens' is int64 \[4\]; expected integers"),
        (
            {"tokens": lists_of(np.ones((2, 4)))},
            r"column 'tokens' is float32 \[4, 4\]; expected integers",
        ),
        (
            {"mask": lists_of(np.ones((2, 4), np.float32))},
            r"column 'mask' is float32 \[4, 4\]; expected integers",
        ),
        (
            {"mask": lists_of(np.ones((2, 3), np.int32))},
            r"'mask' is int64 \[4, 3\] and 'tokens' is int64 \[4, 4\]; .* per token",
        ),
        (
            {"mask": lists_of(np.array([[1, 0, -100, 2]] * 2))},
            r"column 'mask' has -100, 2; expected 1 for tokens that are supervised",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(
    change: dict[str, pa.Array], message: str
) -> None:
    columns: dict[str, pa.Array] = {
        "x": pa.FixedShapeTensorArray.from_numpy_ndarray(
            np.zeros((2, 4, 8), np.float32)
        ),
        "tokens": lists_of(np.zeros((2, 4), np.int64)),
        "mask": lists_of(np.ones((2, 4), np.bool_)),
        **change,
    }

    with pytest.raises(ScoringError, match=message):
        compute(told("logits"), pa.record_batch(columns))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"under": None}, r"returned float32 \[4, 4, 8\]; expected a mapping with"),
        ({"under": "logit"}, "returned a mapping of logit, loss; expected a mapping"),
        ({"under": "hidden"}, "its lm_head is a NoneType; expected the torch.nn.Lin"),
        (
            {"under": "hidden", "width": 16},
            r"hidden as float32 \[4, 4, 8\]; .* shape \[4, 4, 16\]",
        ),
        (
            {"under": "logits", "drop": 1},
            r"logits as float32 \[3, 4, 8\]; .* shape \[4, 4, V\]",
        ),
        (
            {"under": "logits", "column": "tokens"},
            r"logits as int64 \[4, 4\]; .* shape \[4, 4, V\]",
        ),
    ],
)
def test_another_output_than_promised_is_named(
    args: dict[str, Any], message: str
) -> None:
    states = np.zeros((2, 4, 8), np.float32)
    rows = given_rows(states, np.zeros((2, 4), np.int64), np.ones((2, 4), np.bool_))
    model = scorer(
        "small_models:given",
        HEAD,
        args={"column": "x", **args},
        columns=["x", "tokens"],
        micro_batch_size=4,
    )

    with pytest.raises(ScoringError, match=message):
        compute(model, rows)


def test_logits_beside_hidden_states_are_one_too_many() -> None:
    model = lm()
    module: Any = model._hosted.module
    forward = module.forward
    module.forward = lambda batch: {**forward(batch), "logits": None}

    with pytest.raises(ScoringError, match=r"hidden, logits; expected .* either"):
        compute(model, rows_of(2))
