"""Files that may be packed with gzip or zstd, read from start to end."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import pyarrow as pa

from curator.errors import PoolError
from curator.pools._files import PoolFile
from curator.progress import Progress

__all__ = ["Unpacked", "unpacked"]

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class Unpacked:
    """The bytes of a file, unpacked; also a file object for pyarrow's readers."""

    def __init__(
        self, raw: pa.NativeFile, stream: pa.NativeFile, progress: Progress | None
    ) -> None:
        self._raw = raw
        self._stream = stream
        self._progress = progress
        self._position = 0
        self.closed = False

    def read(self, num_bytes: int) -> bytes:
        """Returns the next bytes; none at the end."""
        block = self._stream.read(num_bytes)
        if self._progress is not None:
            position = self._raw.tell()
            self._progress.advance(position - self._position)
            self._position = position
        return block


@contextlib.contextmanager
def unpacked(file: PoolFile, progress: Progress | None) -> Generator[Unpacked]:
    """Opens a file, whose first bytes tell how it is packed.

    Raises:
        PoolError: It cannot be read or unpacked: it is cut short, for example.
    """
    try:
        with file.open_stream() as source:
            start = bytes(source.read(4))
        packing = next(
            (of for magic, of in _MAGIC.items() if start[: len(magic)] == magic), None
        )
        with contextlib.ExitStack() as stack:
            raw = stream = stack.enter_context(file.open_random())
            if packing is not None:
                stream = stack.enter_context(pa.CompressedInputStream(raw, packing))
            yield Unpacked(raw, stream, progress)
    except OSError as error:
        msg = f"{file}: cannot be read: {error}. It may be cut short or damaged"
        raise PoolError(msg) from error
