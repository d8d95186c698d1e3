"""Rows as chunks of an Arrow IPC stream, and back, with one copy on each side.

The buffers of a record batch are cut into messages as they lie; the receiver collects
them in one block of memory that the decoded columns then point into. The generated
message class would copy each chunk three times on the way out and twice on the way in,
which halves the rate on a loopback; so the one-field chunk message is encoded and
decoded here, byte for byte as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from curator.errors import ServiceError
from curator.rpc.v1 import curation_pb2 as pb

__all__ = [
    "CHUNK_BYTES",
    "Reassembly",
    "chunks_of",
    "deserialize_response",
    "encode_chunk",
    "rows_from_bytes",
    "rows_to_parts",
    "serialize_response",
]

# Of 1 to 4 MiB, where gRPC in Python streams fastest, the size that measured best.
CHUNK_BYTES = 2 << 20
# Field 2 (`chunk`) of StreamBatchesResponse, wire type 2 (length-delimited).
_CHUNK_TAG = 0x12


class _Parts:
    """A file that keeps what is written, without copying the large buffers."""

    closed = False

    def __init__(self) -> None:
        self.views: list[memoryview] = []
        self._size = 0

    def write(self, data: bytes | pa.Buffer) -> int:
        view = memoryview(cast("bytes", data)).cast("B")
        self.views.append(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def rows_to_parts(rows: pa.RecordBatch) -> list[memoryview]:
    """Returns the Arrow IPC stream of ``rows`` in parts that lie where they lay."""
    parts = _Parts()
    with pa.ipc.new_stream(pa.PythonFile(parts, mode="w"), rows.schema) as writer:
        writer.write_batch(rows)
    return parts.views


def chunks_of(parts: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """Yields the parts regrouped and cut into chunks of ``CHUNK_BYTES`` at most."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for part in parts:
        start = 0
        while start < len(part):
            piece = part[start : start + room]
            chunk.append(piece)
            start += len(piece)
            room -= len(piece)
            if room == 0:
                yield chunk
                chunk, room = [], CHUNK_BYTES
    if chunk:
        yield chunk


def encode_chunk(chunk: Sequence[memoryview]) -> bytes:
    """Returns the message ``StreamBatchesResponse(chunk=...)``, encoded."""
    size = sum(len(piece) for piece in chunk)
    prefix = bytearray([_CHUNK_TAG])
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return b"".join([prefix, *chunk])


def serialize_response(response: pb.StreamBatchesResponse | bytes) -> bytes:
    """Returns a response encoded; chunks are so already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def deserialize_response(data: bytes) -> pb.StreamBatchesResponse | memoryview:
    """Returns a response, or the bytes of a chunk as a view into ``data``."""
    if data and data[0] == _CHUNK_TAG:
        size, shift, start = 0, 0, 1
        while data[start] & 0x80:
            size |= (data[start] & 0x7F) << shift
            shift, start = shift + 7, start + 1
        size |= data[start] << shift
        if start + 1 + size == len(data):
            return memoryview(data)[start + 1 :]
    return pb.StreamBatchesResponse.FromString(data)


class Reassembly:
    """Collects the chunks of one payload."""

    def __init__(self, num_bytes: int) -> None:
        self._block = np.empty(num_bytes, np.uint8)
        self._size = 0

    @property
    def is_complete(self) -> bool:
        """Whether every byte has arrived."""
        return self._size == len(self._block)

    def add(self, chunk: memoryview) -> None:
        """Takes the next chunk.

        Raises:
            ServiceError: It is longer than what was announced leaves.
        """
        stop = self._size + len(chunk)
        if stop > len(self._block):
            msg = f"a payload of {len(self._block)} bytes announced, {stop} received"
            raise ServiceError(msg)
        self._block[self._size : stop] = chunk
        self._size = stop

    def rows(self) -> pa.RecordBatch:
        """Returns the rows, whose columns point into the collected bytes."""
        return rows_from_bytes(pa.py_buffer(self._block))


def rows_from_bytes(data: pa.Buffer | bytes) -> pa.RecordBatch:
    """Returns the one record batch of an Arrow IPC stream, fully validated.

    Raises:
        ServiceError: It is no such stream.
    """
    try:
        with pa.ipc.open_stream(data) as reader:
            rows = reader.read_next_batch()
        rows.validate(full=True)
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        msg = f"received no valid Arrow IPC stream: {error}"
        raise ServiceError(msg) from error
    return rows
