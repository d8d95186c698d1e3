"""A pool in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from curator.errors import PoolError
from curator.pools._fingerprint import Once, table_fingerprint
from curator.pools._request import still_open
from curator.pools._spans import RowSpans
from curator.pools._take import Chunks

__all__ = ["MemoryPool"]


class MemoryPool:
    """The rows of an Arrow table or record batch, which is not copied.

    The fingerprint is that of the values: two equal tables have one fingerprint however
    they are chunked. It differs from that of a file with the same rows.

    Raises:
        PoolError: The table has no rows, or two columns of one name.
    """

    def __init__(self, table: pa.Table | pa.RecordBatch) -> None:
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        if not table.num_rows:
            msg = "a pool has at least one example; the table has no rows"
            raise PoolError(msg)
        self._table: pa.Table | None = table
        self._rows: Chunks | None = Chunks(table.to_batches(), table.schema)
        self._num_examples: int = table.num_rows
        self._schema = self._rows.schema
        self._fingerprint = Once(
            lambda: table_fingerprint(still_open(self._table).cast(self._schema))
        )

    @property
    def num_examples(self) -> int:
        """How many rows there are."""
        return self._num_examples

    @property
    def schema(self) -> pa.Schema:
        """The columns; of a dictionary column the type of its values."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Digest of the values, computed when first asked for."""
        return self._fingerprint.get()

    def take(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns rows by id, see :meth:`Pool.take`."""
        return still_open(self._rows).take(ids, columns)

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> RowSpans | None:
        """Returns rows where they lie, see :meth:`Pool.spans`."""
        return still_open(self._rows).spans(ids, columns)

    def close(self) -> None:
        """Lets go of the table."""
        self._table = self._rows = None
