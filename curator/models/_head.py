"""What tells one kind of model from another: what is read off its module's output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32
from torch import Tensor, nn

from curator.types import Feature

__all__ = ["Batch", "Column", "Head", "Reader", "described", "distinct", "entropies"]

_MAX_NAMED = 5

Column: TypeAlias = "Tensor | list[object]"
Batch: TypeAlias = Mapping[str, Column]
"""Columns of a micro-batch: tensors on the device, or lists of Python values."""


@runtime_checkable
class Reader(Protocol):
    """From what a module returned for a micro-batch to features."""

    def __call__(
        self, returned: object, batch: Batch, num_rows: int, outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        """Returns the outputs asked for, a row of each per row of the micro-batch.

        Called in inference mode and without autocast.

        Args:
            returned: What the module returned.
            batch: The head's own columns, which the module has not seen.
            num_rows: Rows of the micro-batch.
            outputs: Some of the head's outputs.

        Raises:
            ScoringError: The module returned something else than promised, or a column
                does not fit it.
        """
        ...


@runtime_checkable
class Head(Protocol):
    """One kind of model, for :class:`curator.models.ModuleScorer`.

    Constraints:
        * row i of an output depends on row i of the micro-batch alone;
        * outputs are float32 on the CPU, never logits.
    """

    @property
    def outputs(self) -> frozenset[str]:
        """Names of what it can compute."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the pool that it reads itself: labels, targets."""
        ...

    @property
    def identity(self) -> tuple[str | None, ...]:
        """What its outputs depend on beside the module."""
        ...

    def over(self, module: nn.Module, model: str) -> Reader:
        """Returns the reader of a module with the weights that it has now.

        Asked for again after new weights: a reader may keep what it derives from them.

        Args:
            module: The module, on its device.
            model: What messages call it.
        """
        ...


def described(value: object) -> str:
    """Returns what messages say of a value that is not as promised."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"


def distinct(values: Tensor) -> str:
    """Returns what messages say of integers that are out of range, "" for none."""
    found = np.unique(values.cpu().numpy())
    more = ", ..." if len(found) > _MAX_NAMED else ""
    return f"{', '.join(map(str, found[:_MAX_NAMED]))}{more}"


def entropies(
    log_probs: Float32[Tensor, "*rows entries"],
) -> Float32[Tensor, "*rows"]:
    """Returns the entropy of each row of log-probabilities, in nats."""
    terms = log_probs.exp() * log_probs
    # p log p is 0 at 0, where it is not a number. What is NaN stays so.
    return -terms.masked_fill_(log_probs == -math.inf, 0.0).sum(dim=-1)
