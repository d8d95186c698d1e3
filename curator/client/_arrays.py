"""What a trainer hands over, whatever its framework, as NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Int64

from curator.errors import FeatureError, FeedbackError
from curator.types import Features, PairEmbeddings

__all__ = ["to_features", "to_ids", "to_losses"]


def to_numpy(values: Any) -> np.ndarray:
    """Returns a tensor or array of any framework as NumPy, off its device and graph."""
    for method in ("detach", "cpu"):  # torch
        values = getattr(values, method, lambda values=values: values)()
    if str(getattr(values, "dtype", "")) in ("torch.bfloat16", "torch.float16"):
        values = values.float()  # NumPy has no bfloat16
    return np.asarray(values)


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
    if losses.shape != (num_examples,) or losses.dtype.kind not in "fiu":
        reduced = losses.size == 1 and num_examples != 1
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
    return losses.astype(np.float32)


def to_features(role: str, says: Any, num_examples: int) -> Features:
    """Returns what a model says of candidates as features.

    Args:
        role: ``learner`` or ``reference``.
        says: ``PairEmbeddings``, one loss per candidate, a mapping of outputs by name,
            or None for nothing.
        num_examples: How many candidates there are.

    Raises:
        FeatureError: An output is not a number or a row for each of them.
        FeedbackError: Losses are not one number for each.
    """
    if says is None:
        return {}
    if isinstance(says, PairEmbeddings):
        return {f"{role}.embeddings": says}
    if not isinstance(says, Mapping):
        return {f"{role}.loss": to_losses(says, num_examples)}
    outputs = cast("Mapping[str, Any]", says)
    return {
        f"{role}.{name}": _to_output(f"{role}.{name}", values, num_examples)
        for name, values in outputs.items()
    }


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
