"""What a pool is: everything that could be chosen, by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

if TYPE_CHECKING:
    import pyarrow as pa

    from curator.pools._spans import RowSpans

__all__ = ["Pool"]


@runtime_checkable
class Pool(Protocol):
    """A dataset with random access by example id, a schema and a fingerprint.

    An example id is its position: ids are 0 to ``num_examples - 1``.

    Constraints:
        * safe to use from several threads;
        * :meth:`take` returns rows in the order asked for; an id may occur twice;
        * :attr:`fingerprint` is equal for equal data and differs when any value, the
          order of the rows or the schema does; it does not depend on where the data
          lies.
    """

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns. A virtual pool has none."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the data."""
        ...

    def take(
        self, ids: Int64[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns the rows of ``ids``, in that order, as one record batch.

        Args:
            ids: Example ids, repeats allowed.
            columns: Which columns, in which order; all of them by default.

        Raises:
            PoolError: An id or a column is not in the pool, or the data cannot be read.
        """
        ...

    def spans(
        self, ids: Int64[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> RowSpans | None:
        """Returns the rows of ``ids`` where they lie, or None where they do not.

        As :meth:`take`, for columns of fixed width without nulls in memory (or mapped
        into it): what sends them copies them once.
        """
        ...

    def close(self) -> None:
        """Releases files and caches; the pool is not used afterwards."""
        ...
