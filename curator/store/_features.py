"""One output of a model that never changes, kept on disk from epoch to epoch.

Two sparse files, both indexed by example id:

* ``rows``: float32 ``[N, ...]``, what the model says of an example: one number, a row,
  or an embedding of each side of a pair, side by side, so that one system call moves
  both; rows of a power of two never straddle a page more;
* ``sums``: uint32 ``[N]``, the CRC-32 of the row in ``rows``.

A hole reads as zeros, and a sum of zero means absent: ids that were never stored are
told apart without touching ``rows``. A row that a crash cut short, or a sum without
its row, fails the comparison, so it is absent too and is computed again; nothing has to
be flushed, ordered or repaired.

Both are read and written with system calls and not through a memory map: a page that a
full or failing disk cannot back kills the process that maps it (SIGBUS), whereas a call
returns an error that can be told. On a tmpfs that holds even for reading a hole.

Shapes: ``N`` examples in the pool, ``B`` ids.
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
from jaxtyping import Bool, Int64, UInt32

from curator.errors import StorageError
from curator.types import Feature, PairEmbeddings

__all__ = ["FeatureStore"]

_VERSION = 2
# The multiplier of one model is one number; what differs is another model's, though
# devices may disagree on the last bits of an exponential.
_SCALE_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    """What all rows share.

    Attributes:
        shape: Of a row: () for a number, (width,), or (2, width) for embeddings.
        logit_scale: Of embeddings; None for all else.
        logit_bias: Of embeddings of a model that has one.
    """

    shape: tuple[int, ...]
    logit_scale: float | None = None
    logit_bias: float | None = None

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            msg = f"expected rows of at least one number; got shape {self.shape}"
            raise ValueError(msg)

    def fits(self, other: _Form) -> bool:
        """Whether both are the same model's."""
        pairs = [
            (self.logit_scale, other.logit_scale),
            (self.logit_bias, other.logit_bias),
        ]
        return self.shape == other.shape and all(
            old == new
            or (
                old is not None
                and new is not None
                and math.isclose(old, new, rel_tol=_SCALE_TOLERANCE)
            )
            for old, new in pairs
        )

    def __str__(self) -> str:
        if self.logit_scale is None:
            return f"rows of shape {self.shape}"
        return (
            f"embeddings with (width, logit_scale, logit_bias) = "
            f"({self.shape[1]}, {self.logit_scale}, {self.logit_bias})"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Table:
    """The open files, and what all rows share."""

    rows: int
    sums: int
    form: _Form


class FeatureStore:
    """One output of one fixed model over one pool, by example id.

    Several may be open on one folder at once, in one process or in several; each may be
    used from several threads. A process may be killed at any moment: what is read
    afterwards is what was stored, or absent.
    """

    def __init__(self, folder: str | Path, num_examples: int) -> None:
        """Opens what is stored in a folder, if anything is.

        Args:
            folder: One per pool, model and output; made at the first :meth:`put`.
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
    ) -> tuple[Bool[np.ndarray, " B"], Feature] | None:
        """Returns which ids are stored, and their rows.

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
        shape = table.form.shape
        sums = np.zeros(len(ids), np.uint32)
        try:
            _read_rows(table.sums, ids, sums)
            stored = np.flatnonzero(sums)
            rows = np.zeros((len(stored), *shape), np.float32)
            _read_rows(table.rows, ids[stored], rows)
        except OSError as error:
            raise self._failed(error, "read") from error
        whole = sums[stored] == _checksums(rows)
        present = np.zeros(len(ids), np.bool_)
        present[stored[whole]] = True
        every = np.full((len(ids), *shape), math.nan, np.float32)
        every[present] = rows[whole]
        return present, _unpacked(table.form, every)

    def put(self, ids: Int64[np.ndarray, " B"], feature: Feature) -> None:
        """Stores float32 rows; those that are not finite are left out.

        Raises:
            StorageError: The disk is full or fails, or what is stored has another shape
                or logit scale, so that it is another model's.
            ValueError: An id is not in the pool, or the arrays are not float32 with a
                row per id.
        """
        self._check_ids(ids)
        form, rows = _packed(feature)
        if rows.dtype != np.float32 or len(rows) != len(ids):
            msg = (
                f"expected float32 rows of {len(ids)} ids; got {rows.dtype} rows of "
                f"{len(rows)}"
            )
            raise ValueError(msg)
        table = self._open() or self._create(form)
        if not table.form.fits(form):
            msg = (
                f"{str(self._folder)!r} holds {table.form}; got {form}. They are "
                "another model's: delete the folder, or use another one"
            )
            raise StorageError(msg)
        finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        ids, rows = ids[finite], rows[finite]
        try:
            _write_rows(table.rows, ids, rows)
            _write_rows(table.sums, ids, _checksums(rows))
        except OSError as error:
            raise self._failed(error, f"write {rows.nbytes} bytes to") from error

    def _check_ids(self, ids: Int64[np.ndarray, " B"]) -> None:
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._num_examples:
            msg = (
                f"ids must be in [0, {self._num_examples}); got {ids.min()} to "
                f"{ids.max()}"
            )
            raise ValueError(msg)

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
            form = _Form(tuple(meta["shape"]), meta["logit_scale"], meta["logit_bias"])
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{str(path)!r} is damaged ({error!r}): delete the folder it is in"
            raise StorageError(msg) from error
        if (version, num_examples) != (_VERSION, self._num_examples):
            msg = (
                f"{str(self._folder)!r} holds version {version} features of a pool "
                f"of {num_examples} examples; expected version {_VERSION} and "
                f"{self._num_examples} examples: delete the folder, or use another one"
            )
            raise StorageError(msg)
        return _Table(self._file("rows"), self._file("sums"), form)

    def _file(self, name: str) -> int:
        """Returns a descriptor that is closed when this store is collected."""
        try:
            file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._failed(error, "open") from error
        weakref.finalize(self, os.close, file)
        return file

    def _create(self, form: _Form) -> _Table:
        """Writes the metadata and returns the table.

        Of two that do this at once the last one wins, with the same content.
        """
        meta = {
            "version": _VERSION,
            "num_examples": self._num_examples,
            **dataclasses.asdict(form),
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
            msg = f"{str(self._folder)!r} was deleted while features were stored in it"
            raise StorageError(msg)
        return table

    def _failed(self, error: OSError, doing: str) -> StorageError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageError(
                f"no space left to {doing} the features in {str(self._folder)!r}: "
                "free some and repeat the call"
            )
        return StorageError(
            f"cannot {doing} the features in {str(self._folder)!r}: "
            f"{error.strerror or error}"
        )


def _packed(feature: Feature) -> tuple[_Form, np.ndarray]:
    """Returns what all rows share, and one array with a row per example."""
    if isinstance(feature, np.ndarray):
        return _Form(feature.shape[1:]), feature
    rows = np.stack([feature.queries, feature.targets], axis=1)
    return _Form(rows.shape[1:], feature.logit_scale, feature.logit_bias), rows


def _unpacked(form: _Form, rows: np.ndarray) -> Feature:
    if form.logit_scale is None:
        return rows
    queries, targets = np.ascontiguousarray(rows.swapaxes(0, 1))
    return PairEmbeddings(queries, targets, form.logit_scale, form.logit_bias)


def _checksums(rows: np.ndarray) -> UInt32[np.ndarray, " B"]:
    """Returns the CRC-32 of each row; 1 where it would be 0, which means absent."""
    # Of the bytes end to end: a row that is one number has no buffer of its own.
    size = rows.itemsize * math.prod(rows.shape[1:])
    data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    parts = (data[start : start + size] for start in range(0, len(data), size))
    return np.fromiter((zlib.crc32(part) or 1 for part in parts), np.uint32, len(rows))


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
    data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    for start, stop, first in _runs(ids):
        part, offset = data[start * size : stop * size], first * size
        # A disk that fills up takes a part first, and fails at the next call.
        while part:
            count = os.pwrite(file, part, offset)
            part, offset = part[count:], offset + count
