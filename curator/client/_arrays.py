"""What a trainer hands over, whatever its framework, as NumPy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Int64

from curator.errors import FeatureError, FeedbackError
from curator.types import Features, PairEmbeddings

__all__ = ["to_features", "to_ids", "to_losses", "warn_of_losses"]

_log = logging.getLogger(__name__)


def to_numpy(values: Any) -> np.ndarray:
    """Returns a tensor or array of any framework as NumPy, off its device and graph."""
    if isinstance(values, list | tuple):
        values = [
            to_numpy(value) if hasattr(value, "detach") else value
            for value in cast("Sequence[Any]", values)
        ]
    for method in ("detach", "cpu"):  # torch
        values = getattr(values, method, lambda values=values: values)()
    if str(getattr(values, "dtype", "")) in ("torch.bfloat16", "torch.float16"):
        values = values.float()  # NumPy has no bfloat16
    try:
        return np.asarray(values)
    except ValueError:  # rows of several lengths, which whoever asked refuses
        return np.empty(len(values), object)


def to_ids(values: Any) -> Int64[np.ndarray, " n"]:
    """Returns example ids.

    Raises:
        FeedbackError: They are no one-dimensional integers.
    """
    ids = to_numpy(values)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        msg = (
            "expected a batch, or its example ids as one-dimensional integers; got "
            f"{ids.dtype} of shape {ids.shape}"
        )
        raise FeedbackError(msg)
    return ids.astype(np.int64)


def to_losses(
    values: Any, num_examples: int, step: int | None = None
) -> Float32[np.ndarray, " n"]:
    """Returns un-reduced losses.

    Raises:
        FeedbackError: They are not one number per example.
    """
    losses = to_numpy(values)
    is_number = losses.dtype.kind in "fiu"
    if losses.shape != (num_examples,) or not is_number:
        reduced = is_number and losses.size == 1 and num_examples != 1
        hint = (
            "it looks reduced already: compute the loss with reduction='none'"
            if reduced
            else "one number per example, in the batch's order"
        )
        where = "" if step is None else f"step {step}: "
        msg = (
            f"{where}expected losses of shape ({num_examples},); got {losses.dtype} of "
            f"shape {losses.shape}: {hint}"
        )
        raise FeedbackError(msg)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is set aside
        return losses.astype(np.float32)


def warn_of_losses(
    losses: Float32[np.ndarray, " n"],
    ids: Int64[np.ndarray, " n"],
    name: str,
    step: int,
) -> None:
    """Warns of losses that are not finite."""
    bad = ids[~np.isfinite(losses)]
    if len(bad):
        _log.warning(
            "session %r, step %d: %d of %d losses are not finite (%s ...): "
            "they are set aside and counted",
            name,
            step,
            len(bad),
            len(ids),
            bad[:4].tolist(),
        )


def to_features(role: str, says: Any, num_examples: int) -> Features:
    """Returns what a model says of candidates as features.

    Args:
        role: ``learner`` or ``reference``.
        says: ``PairEmbeddings`` of arrays or tensors, one loss per candidate, a mapping
            of outputs by name, or None for nothing.
        num_examples: How many candidates there are.

    Raises:
        FeatureError: An output is not a number or a row for each of them.
        FeedbackError: Losses are not one number for each.
    """
    if says is None:
        return {}
    if isinstance(says, PairEmbeddings):
        name = f"{role}.embeddings"
        return {name: _to_embeddings(name, says, num_examples)}
    if not isinstance(says, Mapping):
        return {f"{role}.loss": to_losses(says, num_examples)}
    outputs = cast("Mapping[str, Any]", says)
    return {
        f"{role}.{name}": _to_output(f"{role}.{name}", values, num_examples)
        for name, values in outputs.items()
    }


def _to_embeddings(
    name: str, says: PairEmbeddings, num_examples: int
) -> PairEmbeddings:
    """Returns embeddings of any framework as NumPy.

    Raises:
        FeatureError: They are not a row for each candidate and side, or the logit
            parameters are no numbers.
    """
    sides = {"queries": to_numpy(says.queries), "targets": to_numpy(says.targets)}
    for side, rows in sides.items():
        if rows.ndim != 2 or len(rows) != num_examples or rows.dtype.kind != "f":
            msg = (
                f"{name}: expected {side} of shape ({num_examples}, width), floating-"
                f"point; got {rows.dtype} of shape {rows.shape}"
            )
            raise FeatureError(msg)
    bias = says.logit_bias
    return PairEmbeddings(
        **sides,
        logit_scale=_to_number(f"{name}: logit_scale", says.logit_scale),
        logit_bias=None if bias is None else _to_number(f"{name}: logit_bias", bias),
    )


def _to_number(name: str, value: Any) -> float:
    number = to_numpy(value)
    if number.size != 1 or number.dtype.kind not in "fiu":
        msg = f"{name}: expected a number; got {number.dtype} of shape {number.shape}"
        raise FeatureError(msg)
    return float(number.item())


def _to_output(
    name: str, values: Any, num_examples: int
) -> Float32[np.ndarray, "n *w"]:
    """Returns what a model says of each candidate: a number or a row of numbers.

    Raises:
        FeatureError: It is neither.
    """
    output = to_numpy(values)
    is_rows = output.ndim in (1, 2) and len(output) == num_examples
    if not is_rows or output.dtype.kind not in "fiu":
        msg = (
            f"{name}: expected a number or a row of numbers for each of {num_examples} "
            f"candidates; got {output.dtype} of shape {output.shape}"
        )
        raise FeatureError(msg)
    return output.astype(np.float32)
