"""Pieces of many files, read where they lie."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curator.errors import PoolChangedError, PoolError
from curator.pools._changes import changed
from curator.pools._files import PoolFile

__all__ = ["RangeReader"]

# Requests to a remote file system wait for it, not for the processor.
_NUM_THREADS = 16
_Piece: TypeAlias = tuple[int, int, int]  # file, first byte, size


class RangeReader:
    """Reads pieces of files; safe to use from several threads.

    A local file is opened for each :meth:`read`, so that thousands of files need not be
    open, and one that was replaced is seen. A remote file is opened once.
    """

    def __init__(self, files: Sequence[PoolFile]) -> None:
        self._files = files
        self._remote: dict[int, pa.NativeFile] = {}
        self._threads: ThreadPoolExecutor | None = None
        if any(file.local is None for file in files):
            self._threads = ThreadPoolExecutor(
                _NUM_THREADS, thread_name_prefix="curator-pool"
            )

    def read(
        self,
        file_of: Int64[np.ndarray, " n"],
        starts: Int64[np.ndarray, " n"],
        sizes: Int64[np.ndarray, " n"],
    ) -> list[bytes]:
        """Returns the bytes of each piece, in the order asked for.

        Args:
            file_of: Which of the files.
            starts: The piece's first byte in it.
            sizes: How many bytes.

        Raises:
            PoolChangedError: A file is not what it was.
            PoolError: It cannot be read.
        """
        pieces: list[_Piece] = list(
            zip(file_of.tolist(), starts.tolist(), sizes.tolist(), strict=True)
        )
        if self._threads is not None:  # all at once, whatever files they are in
            found = list(self._threads.map(self._read_one, pieces))
        else:
            found = [b""] * len(pieces)
            for places in _by_file(pieces):
                wanted = [pieces[place] for place in places]
                for place, data in zip(places, self._read_local(wanted), strict=True):
                    found[place] = data
        for data, (number, start, size) in zip(found, pieces, strict=True):
            if len(data) != size:
                end = start + size
                msg = f"{self._files[number]}: ends before byte {end}; it was longer"
                raise PoolChangedError(msg)
        return found

    def _read_local(self, pieces: Sequence[_Piece]) -> list[bytes]:
        """Returns pieces of one local file."""
        file = self._files[pieces[0][0]]
        try:
            descriptor = os.open(file.path, os.O_RDONLY)
            try:
                stat = os.fstat(descriptor)
                was = file.state
                if (stat.st_size, stat.st_mtime_ns) != (was.size, was.mtime_ns):
                    raise changed(file)
                return [os.pread(descriptor, size, start) for _, start, size in pieces]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unreadable(file, error) from error

    def _read_one(self, piece: _Piece) -> bytes:
        number, start, size = piece
        file = self._files[number]
        if file.local is not None:
            return self._read_local([piece])[0]
        try:
            return bytes(self._opened(number).read_at(size, start))
        except OSError as error:
            raise _unreadable(file, error) from error

    def _opened(self, number: int) -> pa.NativeFile:
        # Two threads may both open it: waiting for each other would cost more.
        opened = self._remote.get(number)
        if opened is None:
            file = self._files[number]
            if file.current_state() != file.state:
                raise changed(file)
            opened = self._remote.setdefault(number, file.open_random())
        return opened

    def close(self) -> None:
        """Closes what is open."""
        if self._threads is not None:
            self._threads.shutdown()
        for opened in self._remote.values():
            opened.close()
        self._remote.clear()


def _by_file(pieces: Sequence[_Piece]) -> Generator[list[int]]:
    """Yields the places of the pieces of each file, from its start to its end."""
    order = sorted(range(len(pieces)), key=pieces.__getitem__)
    for _, places in itertools.groupby(order, key=lambda place: pieces[place][0]):
        yield list(places)


def _unreadable(file: PoolFile, error: OSError) -> PoolError:
    return PoolError(f"{file}: cannot be read: {error}")
