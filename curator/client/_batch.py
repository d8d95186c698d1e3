"""A batch as the trainer sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from curator.client._transport import Delivery
from curator.config import Weighting
from curator.errors import MissingDependencyError, PoolError
from curator.types import PairEmbeddings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Batch", "Format", "check_format"]

Format = Literal["numpy", "torch"]

_EMBEDDINGS = "reference.embeddings"
_SIDES = ("queries", "targets")


def check_format(format: str, device: str | None = None) -> None:
    """Checks the name of an array format, and where arrays go.

    Raises:
        ValueError: It is not one of the formats, or there is no such device.
        MissingDependencyError: It needs a package that is not installed.
    """
    if format not in ("numpy", "torch"):
        msg = f"format: 'numpy' or 'torch'; got {format!r}"
        raise ValueError(msg)
    if format == "torch":
        try:
            import torch
        except ImportError as error:
            msg = (
                "format='torch' needs torch, which is not installed: "
                "pip install 'batch-curator[torch]'"
            )
            raise MissingDependencyError(msg) from error
        if device is not None:
            try:
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as error:
                why = str(error).partition("\n")[0]
                msg = f"device: torch has none called {str(device)!r} here: {why}"
                raise ValueError(msg) from error
    elif device is not None:
        msg = f"device: arrays of NumPy have none, so not {device!r}: format='torch'"
        raise ValueError(msg)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One rank's slice of a step's batch; ``batch["column"]`` is a column.

    Arrays are NumPy or torch, as the iterator was asked for. Numbers and fixed-shape
    tensors come as arrays of shape ``[rows, ...]`` that share the received memory;
    strings, bytes and lists of varying length as Python lists.
    """

    delivery: Delivery
    format: Format
    device: str | None

    @property
    def step(self) -> int:
        """The learner's global step."""
        return self.delivery.step

    @property
    def epoch(self) -> int:
        """The sampler's epoch."""
        return self.delivery.epoch

    @property
    def epoch_first_step(self) -> int:
        """The first step of the sampler's epoch that the batch is in."""
        return self.delivery.epoch_first_step

    @property
    def epoch_num_steps(self) -> int:
        """How many steps that epoch has, known before its first: for a schedule."""
        return self.delivery.epoch_num_steps

    @property
    def weighting(self) -> Weighting:
        """What the sampler's weights preserve: the ``sum`` or the ``mean``."""
        return self.delivery.weighting

    @property
    def ids(self) -> Any:
        """Example ids, int64 of shape ``[rows]``."""
        return self._array(self.delivery.ids)

    @property
    def weights(self) -> Any:
        """Loss multipliers, float32 of shape ``[rows]``; None for a super-batch."""
        return self._array(self.delivery.weights)

    @property
    def scores(self) -> Any:
        """What each was ranked by, float32 of shape ``[rows]``, or None."""
        return self._array(self.delivery.scores)

    @property
    def snapshot_step(self) -> int | None:
        """Learner steps in the weights that scored the batch, if a learner did."""
        return self.delivery.snapshot_step

    @property
    def late(self) -> bool:
        """Whether scorers fell behind and the batch is a uniform draw."""
        return self.delivery.late

    @property
    def rows(self) -> pa.RecordBatch | None:
        """The columns as Arrow; None where the stream holds ids only."""
        return self.delivery.rows

    @property
    def reference_embeddings(self) -> PairEmbeddings | None:
        """The reference's embeddings of these examples, to distil from.

        None where the session's ``reference_outputs`` do not say so. As torch tensors
        they are ``batch["reference.embeddings.queries"]`` and ``.targets``.
        """
        if self.rows is None or f"{_EMBEDDINGS}.queries" not in self.columns:
            return None
        from curator.columns import column_to_numpy

        sides = [self.rows.column(f"{_EMBEDDINGS}.{side}") for side in _SIDES]
        queries, targets = (np.asarray(column_to_numpy(side)) for side in sides)
        metadata = self.rows.schema.field(f"{_EMBEDDINGS}.queries").metadata
        bias = metadata.get(b"logit_bias")
        return PairEmbeddings(
            queries,
            targets,
            logit_scale=float(metadata[b"logit_scale"]),
            logit_bias=None if bias is None else float(bias),
        )

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns."""
        return [] if self.rows is None else self.rows.schema.names

    def __len__(self) -> int:
        return len(self.delivery.ids)

    def __getitem__(self, column: str) -> Any:
        """Returns a column: numbers as an array of shape ``[rows, ...]``, else a list.

        A null among floating-point numbers is NaN.

        Raises:
            KeyError: There is no such column.
            PoolError: There is a null among integers or booleans, or the order of the
                axes of tensors is not certain.
        """
        from curator.columns import column_to_numpy, column_to_torch, nulls_as_nan

        if self.rows is None or column not in self.columns:
            msg = f"the batch has no column {column!r}; it has {list(self.columns)}"
            raise KeyError(msg)
        values = self.rows.column(column)
        try:
            filled = nulls_as_nan(values)
            if filled is not None:
                return self._array(filled)
            if self.format == "torch":
                return column_to_torch(values, self.device)
            return column_to_numpy(values)
        except PoolError as error:
            msg = f"column {column!r}, step {self.step}: {error}"
            raise PoolError(msg) from None

    def _array(self, values: np.ndarray | None) -> Any:
        if values is None or self.format == "numpy":
            return values
        import torch

        return torch.as_tensor(values, device=self.device or "cpu")
