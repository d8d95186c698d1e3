"""Pools of Lance datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from curator.errors import MissingDependencyError, PoolError
from curator.pools._digest_cache import open_digest_cache
from curator.pools._fingerprint import Once, rows_fingerprint
from curator.pools._location import is_uri
from curator.pools._request import check_columns, check_ids, empty_columns, still_open
from curator.pools._take import plain_schema

__all__ = ["LancePool"]

_BLOCK_ROWS = 8192


class LancePool:
    """The rows of a Lance dataset, of the version that is the last one when it opens.

    Lance itself reads them, wherever they lie: versions, deleted rows and its own
    encodings are its business. Later versions do not change an open pool.

    Args:
        path: The dataset's folder.
        fingerprint_cache: Where the digest of its rows is kept, to read them once only.

    Raises:
        MissingDependencyError: Lance is not installed.
        PoolError: There is no such dataset, it cannot be read, or it has no rows.
    """

    def __init__(
        self, path: str | Path, *, fingerprint_cache: Path | None = None
    ) -> None:
        uri = str(path) if is_uri(path) else str(Path(path).absolute())
        try:
            dataset = _import_lance().dataset(uri)
            num_examples = dataset.count_rows()
        except (OSError, ValueError) as error:
            msg = f"{path}: not a Lance dataset, or damaged: {error}"
            raise PoolError(msg) from error
        if not num_examples:
            msg = f"{path}: a pool has at least one example; the dataset has no rows"
            raise PoolError(msg)
        self._dataset: Any = dataset
        self._num_examples = int(num_examples)
        self._schema = plain_schema(dataset.schema)
        self._uri = uri
        self._fingerprint = Once(lambda: self._digest(fingerprint_cache))

    @property
    def num_examples(self) -> int:
        """How many rows there are, without the deleted ones."""
        return self._num_examples

    @property
    def schema(self) -> pa.Schema:
        """The columns; of a dictionary column the type of its values."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Digest of the values, computed when first asked for."""
        return self._fingerprint.get()

    def _digest(self, cache: Path | None) -> str:
        dataset = still_open(self._dataset)
        # The files of a version are never written again, and named at random.
        fragments = [
            fragment.metadata.to_json() for fragment in dataset.get_fragments()
        ]
        state = hashlib.blake2b(repr(fragments).encode(), digest_size=16).hexdigest()
        with open_digest_cache(cache) as known:
            digest = known.get(self._uri, state)
            if digest is None:
                digest = bytes.fromhex(self._hash_rows(dataset))
                known.put(self._uri, state, digest)
        return digest.hex()

    def _hash_rows(self, dataset: Any) -> str:
        batches = dataset.to_batches(batch_size=_BLOCK_ROWS, scan_in_order=True)
        try:
            return rows_fingerprint(
                self._schema,
                self._num_examples,
                (batch.cast(self._schema) for batch in batches),
            )
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise self._unreadable(error) from error

    def take(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns rows by id, see :meth:`Pool.take`."""
        dataset = still_open(self._dataset)
        ids = check_ids(ids, self._num_examples)
        names = check_columns(columns, self._schema)
        if not names:
            return empty_columns(len(ids))
        schema = pa.schema([self._schema.field(name) for name in names])
        if not len(ids):
            return pa.RecordBatch.from_arrays(
                [pa.nulls(0, field.type) for field in schema], schema=schema
            )
        wanted, places = np.unique(ids, return_inverse=True)
        try:
            table: Any = dataset.take(wanted.tolist(), columns=names)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        rows = table.cast(schema).combine_chunks().take(pa.array(places))
        [batch] = rows.combine_chunks().to_batches()
        return batch

    def _unreadable(self, error: Exception) -> PoolError:
        return PoolError(f"{self._uri}: a Lance dataset that cannot be read: {error}")

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> None:
        """Returns None: the rows do not lie in memory."""

    def close(self) -> None:
        """Lets go of the dataset."""
        self._dataset = None


def _import_lance() -> Any:
    try:
        import lance  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        if error.name != "lance":
            raise
        msg = (
            "a pool of format 'lance' needs Lance, which is not installed: "
            "pip install 'batch-curator[lance]'"
        )
        raise MissingDependencyError(msg) from error
    return lance
