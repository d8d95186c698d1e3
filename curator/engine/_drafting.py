"""From candidates and their features to the record of a step."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from curator.columns import column_to_numpy
from curator.config import SessionSpec
from curator.engine._executor import ScoringResult
from curator.engine._selection import select
from curator.errors import FeatureError
from curator.ledger import StepRecord
from curator.policies import Uniform
from curator.pools import Pool
from curator.rng import Noise
from curator.types import Features, JointFeatures, Selection, SuperBatch

__all__ = [
    "column_values",
    "draft",
    "feature_values",
    "pool_columns",
    "pool_features",
]

_POOL = "pool."


def pool_columns(needs: frozenset[str]) -> list[str]:
    """Returns the columns of the pool that a policy reads."""
    return sorted(n.removeprefix(_POOL) for n in needs if n.startswith(_POOL))


def pool_features(
    pool: Pool, ids: Int64[np.ndarray, " B"], columns: Sequence[str]
) -> Features:
    """Returns columns of the candidates as features.

    Raises:
        FeatureError: A column holds neither a number, nor a string, nor a row of
            numbers per example.
    """
    if not columns:
        return {}
    rows = pool.take(ids, columns)
    return {
        f"{_POOL}{name}": feature_values(name, rows.column(name)) for name in columns
    }


def feature_values(name: str, column: pa.Array) -> np.ndarray:
    """Returns a column that a policy reads: as :func:`column_values`, or rows.

    Raises:
        FeatureError: It holds neither.
    """
    values = column_to_numpy(column)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return values
    return _one_each(name, column, values, nulls=True)


def column_values(name: str, column: pa.Array, *, nulls: bool) -> np.ndarray:
    """Returns the values of a column that a policy or a sampler reads.

    Args:
        name: The column's name.
        column: The column.
        nulls: Whether it may have nulls; then it comes as objects, None for a null.

    Raises:
        FeatureError: It does not hold one number or string per example.
    """
    return _one_each(name, column, column_to_numpy(column), nulls=nulls)


def _one_each(
    name: str, column: pa.Array, values: np.ndarray | list[Any], *, nulls: bool
) -> np.ndarray:
    has_nulls = isinstance(values, list) and None in values
    array = np.asarray(values, object if has_nulls and nulls else None)
    if array.ndim != 1 or array.dtype.kind not in ("biufUO" if nulls else "biufU"):
        msg = (
            f"column {name!r} has to hold one number or string per example"
            f"{'' if nulls else ', and no nulls'}; it holds {column.type}"
            f"{f' with {column.null_count} nulls' if column.null_count else ''}"
        )
        raise FeatureError(msg)
    return array


def draft(
    spec: SessionSpec,
    super_batch: SuperBatch,
    features: JointFeatures | None,
    *,
    results: Sequence[ScoringResult] = (),
    snapshot_step: int | None = None,
) -> StepRecord:
    """Selects, and returns the step as the ledger will have it.

    Args:
        spec: The session.
        super_batch: The candidates.
        features: What the policy reads; None for a uniform draw instead.
        results: What scoring cost, and that which came too late since the last step.
        snapshot_step: Which learner scored.
    """
    step = super_batch.step
    started = time.perf_counter()
    if features is None:
        selection = Uniform().select(
            super_batch.ids, {}, spec.batch_size, Noise(spec.seed, step, "late")
        )
    else:
        # Sharded pairs come for no policy but the one that knows them.
        given = cast("Features", features)
        noise = Noise(spec.seed, step)
        selection = select(spec.policy, super_batch, given, spec.batch_size, noise)
    weights = selection.weights
    if super_batch.weights is not None:
        weights = weights * super_batch.weights[selection.indices]
    return StepRecord(
        step=step,
        epoch=super_batch.epoch,
        ids=super_batch.ids[selection.indices],
        weights=weights,
        scores=_float32(selection.scores),
        snapshot_step=snapshot_step,
        late=features is None,
        stats=_cost(super_batch, selection, results, time.perf_counter() - started),
        remember=selection.remember,
    )


def _cost(
    super_batch: SuperBatch,
    selection: Selection,
    results: Sequence[ScoringResult],
    selection_seconds: float,
) -> dict[str, float]:
    """Returns a step's entry in the account: what it cost and what was odd."""
    scored, events = collections.Counter[str](), collections.Counter[str]()
    for result in results:
        scored.update(result.num_scored)
        events.update(result.events)
    return {
        "scoring_seconds": math.fsum(result.seconds for result in results),
        "selection_seconds": selection_seconds,
        "num_candidates": len(super_batch.ids),
        "num_learner_scored": scored["learner"],
        "num_reference_scored": scored["reference"],
        **events,
        **selection.stats,
    }


def _float32(values: Float[np.ndarray, " n"] | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float32)
