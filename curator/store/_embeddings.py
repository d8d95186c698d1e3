"""Embeddings of a model that never changes, kept on disk from epoch to epoch.

Two sparse files, both indexed by example id:

* ``pairs``: float32 ``[N, 2, D]``, query and target of an example side by side, so that
  one system call moves both; rows of a power of two never straddle a page more;
* ``sums``: uint32 ``[N]``, the CRC-32 of the row in ``pairs``.

A hole reads as zeros, and a sum of zero means absent: ids that were never stored are
told apart without touching ``pairs``. A row that a crash cut short, or a sum without
its row, fails the comparison, so it is absent too and is computed again; nothing has to
be flushed, ordered or repaired.

Both are read and written with system calls and not through a memory map: a page that a
full or failing disk cannot back kills the process that maps it (SIGBUS), whereas a call
returns an error that can be told. On a tmpfs that holds even for reading a hole.

Shapes: ``N`` examples in the pool, ``B`` ids, ``D`` the embedding width.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt32

from curator.errors import StorageError
from curator.types import PairEmbeddings

__all__ = ["EmbeddingStore"]

_VERSION = 1
# The multiplier of one model is one number; what differs is another model's, though
# devices may disagree on the last bits of an exponential.
_SCALE_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True, slots=True)
class _Table:
    """The open files, and what all rows share."""

    pairs: int
    sums: int
    dim: int
    logit_scale: float
    logit_bias: float | None


class EmbeddingStore:
    """Embeddings of one fixed model over one pool, by example id.

    Several may be open on one folder at once, in one process or in several; each may be
    used from several threads. A process may be killed at any moment: what is read
    afterwards is what was stored, or absent.
    """

    def __init__(self, folder: str | Path, num_examples: int) -> None:
        """Opens what is stored in a folder, if anything is.

        Args:
            folder: One per pair of pool and model; made at the first :meth:`put`.
            num_examples: Size of the pool.

        Raises:
            StorageError: The folder belongs to a pool of another size, or cannot be
                read.
        """
        self._folder = Path(folder)
        self._num_examples = num_examples
        self._lock = threading.Lock()
        self._table: _Table | None = None
        self._open()

    def get(
        self, ids: Int64[np.ndarray, " B"]
    ) -> tuple[Bool[np.ndarray, " B"], PairEmbeddings] | None:
        """Returns which ids are stored, and their embeddings.

        The arrays are the caller's own; rows that are not stored are NaN. Returns None
        as long as nothing was ever stored, because the width is not known before.

        Raises:
            StorageError: The disk cannot be read.
            ValueError: An id is not in the pool.
        """
        self._check_ids(ids)
        table = self._open()
        if table is None:
            return None
        sums = np.zeros(len(ids), np.uint32)
        try:
            _read_rows(table.sums, ids, sums)
            stored = np.flatnonzero(sums)
            pairs = np.zeros((len(stored), 2, table.dim), np.float32)
            _read_rows(table.pairs, ids[stored], pairs)
        except OSError as error:
            raise self._failed(error, "read") from error
        whole = sums[stored] == _checksums(pairs)
        rows = stored[whole]
        present = np.zeros(len(ids), np.bool_)
        present[rows] = True
        both = np.full((2, len(ids), table.dim), math.nan, np.float32)
        both[:, rows] = pairs[whole].swapaxes(0, 1)
        return present, PairEmbeddings(
            queries=both[0],
            targets=both[1],
            logit_scale=table.logit_scale,
            logit_bias=table.logit_bias,
        )

    def put(self, ids: Int64[np.ndarray, " B"], embeddings: PairEmbeddings) -> None:
        """Stores float32 embeddings; rows that are not finite are left out.

        Raises:
            StorageError: The disk is full or fails, or what is stored has another width
                or logit scale, so that it is another model's.
            ValueError: An id is not in the pool, or the arrays are not float32 with a
                row per id.
        """
        self._check_ids(ids)
        pairs = np.stack([embeddings.queries, embeddings.targets], axis=1)
        if pairs.dtype != np.float32 or len(pairs) != len(ids):
            msg = (
                f"expected float32 embeddings of {len(ids)} ids; got {pairs.dtype} "
                f"embeddings of {len(pairs)}"
            )
            raise ValueError(msg)
        table = self._open() or self._create(embeddings)
        self._check_model(table, embeddings)
        finite = np.isfinite(pairs).all(axis=(1, 2))
        ids, pairs = ids[finite], pairs[finite]
        try:
            _write_rows(table.pairs, ids, pairs)
            _write_rows(table.sums, ids, _checksums(pairs))
        except OSError as error:
            raise self._failed(error, f"write {pairs.nbytes} bytes to") from error

    def _check_ids(self, ids: Int64[np.ndarray, " B"]) -> None:
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._num_examples:
            msg = (
                f"ids must be in [0, {self._num_examples}); got {ids.min()} to "
                f"{ids.max()}"
            )
            raise ValueError(msg)

    def _check_model(self, table: _Table, embeddings: PairEmbeddings) -> None:
        stored = (table.dim, table.logit_scale, table.logit_bias)
        given = (
            embeddings.queries.shape[1],
            embeddings.logit_scale,
            embeddings.logit_bias,
        )
        same = [
            old == new
            or (
                old is not None
                and new is not None
                and math.isclose(old, new, rel_tol=_SCALE_TOLERANCE)
            )
            for old, new in zip(stored[1:], given[1:], strict=True)
        ]
        if stored[0] != given[0] or not all(same):
            msg = (
                f"{str(self._folder)!r} holds embeddings with (width, logit_scale, "
                f"logit_bias) = {stored}; got {given}. They are another model's: "
                "delete the folder, or use another one"
            )
            raise StorageError(msg)

    def _open(self) -> _Table | None:
        """Returns the table, None where nothing has been stored yet."""
        with self._lock:
            if self._table is None:
                # Another store may have made it since.
                self._table = self._open_existing()
            return self._table

    def _open_existing(self) -> _Table | None:
        path = self._folder / "meta.json"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error, "read") from error
        try:
            meta = cast("dict[str, Any]", json.loads(text))
            version, num_examples = meta["version"], meta["num_examples"]
            dim, scale, bias = meta["dim"], meta["logit_scale"], meta["logit_bias"]
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{str(path)!r} is damaged ({error!r}): delete the folder it is in"
            raise StorageError(msg) from error
        if (version, num_examples) != (_VERSION, self._num_examples):
            msg = (
                f"{str(self._folder)!r} holds version {version} embeddings of a pool "
                f"of {num_examples} examples; expected version {_VERSION} and "
                f"{self._num_examples} examples: delete the folder, or use another one"
            )
            raise StorageError(msg)
        return _Table(self._file("pairs"), self._file("sums"), dim, scale, bias)

    def _file(self, name: str) -> int:
        """Returns a descriptor that is closed when this store is collected."""
        try:
            file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._failed(error, "open") from error
        weakref.finalize(self, os.close, file)
        return file

    def _create(self, embeddings: PairEmbeddings) -> _Table:
        """Writes the metadata and returns the table.

        Of two that do this at once the last one wins, with the same content.
        """
        meta = {
            "version": _VERSION,
            "num_examples": self._num_examples,
            "dim": embeddings.queries.shape[1],
            "logit_scale": embeddings.logit_scale,
            "logit_bias": embeddings.logit_bias,
        }
        part = self._folder / f".meta-{os.getpid()}-{threading.get_ident()}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("w", encoding="utf-8") as file:
                json.dump(meta, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / "meta.json")
        except OSError as error:
            raise self._failed(error, "write") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        table = self._open()
        if table is None:
            msg = (
                f"{str(self._folder)!r} was deleted while embeddings were stored in it"
            )
            raise StorageError(msg)
        return table

    def _failed(self, error: OSError, doing: str) -> StorageError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageError(
                f"no space left to {doing} the embeddings in {str(self._folder)!r}: "
                "free some and repeat the call"
            )
        return StorageError(
            f"cannot {doing} the embeddings in {str(self._folder)!r}: "
            f"{error.strerror or error}"
        )


def _checksums(pairs: Float32[np.ndarray, "B 2 D"]) -> UInt32[np.ndarray, " B"]:
    """Returns the CRC-32 of each row; 1 where it would be 0, which means absent."""
    return np.fromiter((zlib.crc32(row) or 1 for row in pairs), np.uint32, len(pairs))


def _runs(ids: Int64[np.ndarray, " B"]) -> Iterator[tuple[int, int, int]]:
    """Yields (start, stop, first id) of each run of successive ids."""
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    starts = np.concatenate([[0], breaks])[: len(ids)]
    stops = np.concatenate([breaks, [len(ids)]])[: len(ids)]
    return zip(starts.tolist(), stops.tolist(), ids[starts].tolist(), strict=True)


def _read_rows(file: int, ids: Int64[np.ndarray, " B"], rows: np.ndarray) -> None:
    """Fills ``rows`` by id; leaves alone what lies past the end of the file."""
    size = rows.itemsize * math.prod(rows.shape[1:])
    data = rows.reshape(-1).view(np.uint8).data
    for start, stop, first in _runs(ids):
        part, offset = data[start * size : stop * size], first * size
        while part:
            count = os.preadv(file, [part], offset)
            if count == 0:
                break
            part, offset = part[count:], offset + count


def _write_rows(file: int, ids: Int64[np.ndarray, " B"], rows: np.ndarray) -> None:
    size = rows.itemsize * math.prod(rows.shape[1:])
    data = rows.reshape(-1).view(np.uint8).data
    for start, stop, first in _runs(ids):
        part, offset = data[start * size : stop * size], first * size
        # A disk that fills up takes a part first, and fails at the next call.
        while part:
            count = os.pwrite(file, part, offset)
            part, offset = part[count:], offset + count
