"""Reads the features that a policy needs, or says what is wrong with them.

Shapes: ``B`` is the super-batch size, ``n`` the number of usable candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from curator.errors import FeatureError
from curator.scores import (
    SCORES,
    JointScores,
    PairLoss,
    PairModel,
    PairScores,
    ScoreName,
    ShardedScores,
    pair_models,
)
from curator.types import (
    Feature,
    Features,
    JointFeatures,
    PairEmbeddings,
    ShardedPairs,
)

__all__ = [
    "check_num_selected",
    "read_feature",
    "read_floats",
    "read_joint_scores",
    "read_labels",
    "read_memory",
    "read_pairs",
    "read_scores",
    "wrong_feature",
]

# No model has such logits, and their sums are still finite in float32.
_LARGEST = 1e9

_Value = TypeVar("_Value")


def check_num_selected(ids: Int64[np.ndarray, " B"], num_selected: int) -> None:
    """Raises ValueError unless that many candidates can be selected."""
    if not 1 <= num_selected <= len(ids):
        msg = (
            f"num_selected must be in [1, super-batch size]; got {num_selected} for a "
            f"super-batch of {len(ids)}"
        )
        raise ValueError(msg)


def read_scores(
    features: Features, score: ScoreName, ids: Int64[np.ndarray, " B"]
) -> Float64[np.ndarray, " B"]:
    """Returns the score of each candidate; not finite where a feature of it is not.

    Raises:
        FeatureError: A feature is missing or not one float per candidate.
    """
    total = np.zeros(len(ids))
    for name, coefficient in SCORES[score].terms:
        values = read_floats(features, name, ids)
        with np.errstate(over="ignore", invalid="ignore"):
            total += coefficient * values
    return total


def read_floats(
    features: Features, name: str, ids: Int64[np.ndarray, " B"]
) -> Float64[np.ndarray, " B"]:
    """Returns a feature that is one float per candidate.

    Raises:
        FeatureError: It is missing or not one float per candidate.
    """
    values = read_feature(features, name)
    if not isinstance(values, np.ndarray) or values.shape != (len(ids),):
        raise wrong_feature(
            name, values, f"one float per candidate, shape ({len(ids)},)"
        )
    if not np.issubdtype(values.dtype, np.floating):
        raise wrong_feature(name, values, "float16, float32 or float64")
    return values.astype(np.float64)


def read_memory(features: Features) -> Float32[np.ndarray, " rows"]:
    """Returns what a policy remembered of its past, one value per row, oldest first.

    Raises:
        FeatureError: The memory is missing, or not rows of one float32.
    """
    name = "memory"
    memory = read_feature(features, name)
    if (
        not isinstance(memory, np.ndarray)
        or memory.dtype != np.float32
        or memory.ndim != 2
        or (len(memory) > 0 and memory.shape[1] != 1)
    ):
        wanted = "float32 of shape (rows, 1)"
        raise wrong_feature(name, memory, wanted)
    return memory.reshape(-1)


def read_labels(
    features: Features, name: str, ids: Int64[np.ndarray, " B"]
) -> tuple[Shaped[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """Returns a column of labels as strings, and which candidates have one.

    Raises:
        FeatureError: The column is missing, or not one integer or string per candidate.
    """
    wanted = f"one integer or string per candidate, shape ({len(ids)},)"
    values = read_feature(features, name)
    if (
        not isinstance(values, np.ndarray)
        or values.shape != (len(ids),)
        or values.dtype.kind not in "iuUO"
    ):
        raise wrong_feature(name, values, wanted)
    known = np.ones(len(ids), bool)
    if values.dtype.kind == "O":
        for kind in sorted({type(value).__name__ for value in values}):
            if kind not in ("NoneType", "int", "str"):
                msg = f"feature {name!r} must be {wanted}; got a {kind}"
                raise FeatureError(msg)
        known = np.array([value is not None for value in values], bool)
    return values.astype(np.str_), known


def read_joint_scores(
    features: JointFeatures,
    score: ScoreName,
    loss: PairLoss,
    ids: Int64[np.ndarray, " B"],
) -> tuple[Int64[np.ndarray, " n"], JointScores]:
    """Returns the usable candidates in order of id, and their joint scores.

    Raises:
        FeatureError: As :func:`read_pairs`; or only some of the embeddings are
            sharded, or not in the same shards, or the shards hold other candidates.
    """
    coefficients = {f"{model}.embeddings": by for model, by in SCORES[score].models}
    found = {name: read_feature(features, name) for name in coefficients}
    pairs = next((it for it in found.values() if isinstance(it, ShardedPairs)), None)
    if pairs is None:
        parts = _read_parts(cast("Features", found), score, loss, len(ids))
        order = np.argsort(ids)
        places, models = pair_models(parts, order)
        return order[places], PairScores(loss, models, places)
    for name, value in found.items():
        if value is not pairs or name not in pairs.logits:
            msg = (
                f"features {', '.join(found)} must be one and the same sharded pairs, "
                f"which hold all these models; got {type(value).__name__} with "
                f"{', '.join(sorted(pairs.logits))}"
            )
            raise FeatureError(msg)
        _check_logits(name, *pairs.logits[name], loss)
    rows = np.concatenate(pairs.rows)
    if not np.array_equal(np.sort(rows), np.arange(len(ids))):
        msg = (
            f"sharded pairs must hold each of {len(ids)} candidates once; got "
            f"{len(rows)} rows in {len(pairs.rows)} shards"
        )
        raise FeatureError(msg)
    scores = ShardedScores(pairs, loss, coefficients, ids)
    return scores.rows, scores


def read_pairs(
    features: Features,
    score: ScoreName,
    loss: PairLoss,
    ids: Int64[np.ndarray, " B"],
) -> tuple[Int64[np.ndarray, " n"], list[PairModel]]:
    """Returns the usable candidates in order of id, and each model's part of a score.

    The order of ids, not of candidates: then rounding does not depend on how the
    super-batch was shuffled, and neither does the choice.

    Raises:
        FeatureError: Embeddings are missing, of the wrong shape, or without the
            logit scale or bias that the loss needs.
    """
    order = np.argsort(ids)
    places, models = pair_models(_read_parts(features, score, loss, len(ids)), order)
    return order[places], models


def _read_parts(
    features: Features, score: ScoreName, loss: PairLoss, num_candidates: int
) -> list[tuple[float, PairEmbeddings]]:
    """Returns the coefficient and the embeddings of each model of a score."""
    return [
        (by, _read_embeddings(features, f"{model}.embeddings", loss, num_candidates))
        for model, by in SCORES[score].models
    ]


def _read_embeddings(
    features: Features, name: str, loss: PairLoss, num_candidates: int
) -> PairEmbeddings:
    embeddings = read_feature(features, name)
    if not isinstance(embeddings, PairEmbeddings):
        raise wrong_feature(name, embeddings, "PairEmbeddings")
    for side in (embeddings.queries, embeddings.targets):
        if side.ndim != 2 or side.shape != embeddings.queries.shape:
            raise wrong_feature(name, side, "queries and targets of one shape (B, D)")
        if len(side) != num_candidates:
            raise wrong_feature(
                name, side, f"one row for each of {num_candidates} candidates"
            )
        if not np.issubdtype(side.dtype, np.floating):
            raise wrong_feature(name, side, "float16, float32 or float64")
    _check_logits(name, embeddings.logit_scale, embeddings.logit_bias, loss)
    return embeddings


def _check_logits(name: str, scale: float, bias: float | None, loss: PairLoss) -> None:
    if not 0 < scale <= _LARGEST:
        msg = (
            f"feature {name!r}: logit_scale must be above 0, and at most "
            f"{_LARGEST:g}; got {scale}. It is what similarities are multiplied by, "
            "not its logarithm"
        )
        raise FeatureError(msg)
    if loss == "sigmoid" and bias is None:
        msg = (
            f"feature {name!r}: loss 'sigmoid' needs the model's logit_bias; got None. "
            "Without it the negatives drown the positives: give the bias, or use loss "
            "'softmax' for a model trained with that"
        )
        raise FeatureError(msg)
    if bias is not None and not abs(bias) <= _LARGEST:
        msg = (
            f"feature {name!r}: logit_bias must be between -{_LARGEST:g} and "
            f"{_LARGEST:g}; got {bias}"
        )
        raise FeatureError(msg)


def read_feature(features: Mapping[str, _Value], name: str) -> _Value:
    """Returns a feature.

    Raises:
        FeatureError: It is missing.
    """
    if name not in features:
        given = ", ".join(sorted(features)) or "none"
        msg = f"the policy needs the feature {name!r}; got {given}"
        raise FeatureError(msg)
    return features[name]


def wrong_feature(name: str, value: Feature, wanted: str) -> FeatureError:
    """Returns the error of a feature that is not what is wanted."""
    if isinstance(value, np.ndarray):
        given = f"{value.dtype} of shape {value.shape}"
    else:
        given = type(value).__name__
    return FeatureError(f"feature {name!r} must be {wanted}; got {given}")
