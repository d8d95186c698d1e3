"""A pool of ids, for trainers that read the data themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from curator.errors import PoolError
from curator.pools._fingerprint import virtual_fingerprint
from curator.pools._request import check_columns, check_ids, empty_columns

__all__ = ["VirtualPool"]


class VirtualPool:
    """Ids 0 to ``num_examples - 1`` and no data.

    Its fingerprint is that of the number: data that changes behind the ids is not seen.

    Raises:
        PoolError: ``num_examples`` is below one.
    """

    def __init__(self, num_examples: int) -> None:
        if num_examples < 1:
            msg = f"num_examples: a pool has at least one example; got {num_examples}"
            raise PoolError(msg)
        self._num_examples = num_examples

    @property
    def num_examples(self) -> int:
        """How many ids there are."""
        return self._num_examples

    @property
    def schema(self) -> pa.Schema:
        """No columns."""
        return pa.schema([])

    @property
    def fingerprint(self) -> str:
        """Digest of the number of ids."""
        return virtual_fingerprint(self._num_examples)

    def take(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns as many rows as ids, without columns."""
        check_columns(columns, self.schema)
        return empty_columns(len(check_ids(ids, self._num_examples)))

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> None:
        """Returns None: the rows lie nowhere."""

    def close(self) -> None:
        """Does nothing; there is nothing to release."""
