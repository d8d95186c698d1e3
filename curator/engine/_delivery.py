"""What a batch holds beside its ids: columns of the pool, outputs of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curator.columns import rows_from_numpy
from curator.config import SessionSpec
from curator.engine._features import FeatureSource
from curator.errors import ConfigError
from curator.pools import Pool, RowSpans
from curator.types import Feature, PairEmbeddings

__all__ = ["Delivery"]

_REFERENCE = "reference."
_SIDES = ("queries", "targets")


class Delivery:
    """Reads the rows of a session's batches.

    Outputs of the reference (``reference_outputs``) come as further columns:
    ``reference.loss``, ``reference.embeddings.queries`` ... Row i of them is of example
    i of the batch, whatever the order of the batch.
    """

    def __init__(self, spec: SessionSpec, pool: Pool, features: FeatureSource) -> None:
        self._pool = pool
        self._features = features
        self._columns = spec.columns
        self._outputs = {
            column: output
            for output in spec.reference_outputs
            for column in _columns_of(output)
        }

    def columns(self, asked: Sequence[str] | None) -> list[str]:
        """Returns the columns to deliver: those asked for, or the session's.

        Args:
            asked: Names; None for the session's, and all outputs of the reference.

        Raises:
            ConfigError: There is no such column.
        """
        names = [*self._pool.schema.names, *self._outputs]
        if asked is None:
            chosen = self._pool.schema.names if self._columns is None else self._columns
            asked = [*chosen, *self._outputs]
        unknown = [column for column in asked if column not in names]
        if unknown:
            msg = f"no columns {unknown} in the pool; it has {names}"
            raise ConfigError(msg)
        return list(asked)

    def spans(
        self, ids: Int64[np.ndarray, " n"], columns: Sequence[str]
    ) -> RowSpans | None:
        """Returns rows where they lie; None where they have to be put together."""
        if not self._outputs.keys().isdisjoint(columns):
            return None
        return self._pool.spans(ids, columns)

    def rows(
        self, ids: Int64[np.ndarray, " n"], columns: Sequence[str]
    ) -> pa.RecordBatch:
        """Returns the rows of some examples, in their order.

        Raises:
            PoolError: The data cannot be read.
            ScoringError: The reference failed.
        """
        of_pool = [column for column in columns if column not in self._outputs]
        if len(of_pool) == len(columns):
            return self._pool.take(ids, of_pool)
        rows = self._pool.take(ids, of_pool)
        arrays = dict(zip(of_pool, rows.columns, strict=True))
        fields = {field.name: field for field in rows.schema}
        outputs = frozenset(self._outputs[c] for c in columns if c in self._outputs)
        for name, feature in self._features.of_reference(ids, outputs).items():
            for column, array, metadata in _arrays(name, feature):
                arrays[column] = array
                fields[column] = pa.field(column, array.type, metadata=metadata)
        return pa.RecordBatch.from_arrays(
            [arrays[column] for column in columns],
            schema=pa.schema([fields[column] for column in columns]),
        )


def _columns_of(output: str) -> list[str]:
    name = f"{_REFERENCE}{output}"
    return [f"{name}.{side}" for side in _SIDES] if output == "embeddings" else [name]


def _arrays(
    name: str, feature: Feature
) -> list[tuple[str, pa.Array, dict[str, str] | None]]:
    """Returns a feature as columns: name, values, and what the values go with."""
    if isinstance(feature, PairEmbeddings):
        # Similarities mean nothing without the scale and the bias of their model.
        metadata = {"logit_scale": repr(feature.logit_scale)}
        if feature.logit_bias is not None:
            metadata["logit_bias"] = repr(feature.logit_bias)
        return [
            (f"{name}.{side}", rows_from_numpy(getattr(feature, side)), metadata)
            for side in _SIDES
        ]
    array = pa.array(feature) if feature.ndim == 1 else rows_from_numpy(feature)
    return [(name, array, None)]
