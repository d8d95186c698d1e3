"""Rows as chunks of an Arrow IPC stream, and back, with one copy on each side.

The buffers of a record batch are cut into messages as they lie; the receiver collects
them in one block of memory that the decoded columns then point into. The generated
message class would copy each chunk three times on the way out and twice on the way in,
which halves the rate on a loopback; so that message is encoded and decoded here, byte
for byte as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa

from curator.errors import ServiceError
from curator.rpc.v1 import curation_pb2 as pb

__all__ = [
    "CHUNK_BYTES",
    "Reassembly",
    "Response",
    "batch_messages",
    "chunks_of",
    "deserialize_response",
    "rows_from_bytes",
    "rows_to_parts",
    "serialize_response",
]

# Of 1 to 4 MiB, where gRPC in Python streams fastest, the size that measured best.
CHUNK_BYTES = 2 << 20
# Fields 1 and 2 of StreamBatchesResponse, both of wire type 2 (length-delimited).
_HEADER_TAG, _CHUNK_TAG = 0x0A, 0x12


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


def batch_messages(
    header: pb.BatchHeader, parts: Sequence[memoryview]
) -> Iterator[bytes]:
    """Yields the encoded responses of one batch.

    Args:
        header: Its header; ``payload_bytes`` is filled in.
        parts: Its rows, as :func:`rows_to_parts` gives them; empty for none.
    """
    header.payload_bytes = sum(len(part) for part in parts)
    prefix = pb.StreamBatchesResponse(header=header).SerializeToString()
    for chunk in chunks_of(parts):
        size = sum(len(piece) for piece in chunk)
        yield b"".join([prefix, bytes([_CHUNK_TAG]), _varint(size), *chunk])
        prefix = b""
    if prefix:
        yield prefix


def serialize_response(response: pb.StreamBatchesResponse | bytes) -> bytes:
    """Returns a response encoded; those of batches are so already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


class Response(NamedTuple):
    """A decoded ``StreamBatchesResponse``.

    Attributes:
        header: The header, if one begins here.
        chunk: The bytes of a chunk, if there is one: a view into the message.
        is_end: Whether the session is over.
    """

    header: pb.BatchHeader | None
    chunk: memoryview | None
    is_end: bool


def deserialize_response(data: bytes) -> Response:
    """Returns a response whose chunk is not copied out of ``data``."""
    header, start = None, 0
    if data[:1] == bytes([_HEADER_TAG]):
        size, start = _read_varint(data, 1)
        header = pb.BatchHeader.FromString(data[start : start + size])
        start += size
        if start == len(data):
            return Response(header, None, is_end=False)
    if data[start : start + 1] == bytes([_CHUNK_TAG]):
        size, body = _read_varint(data, start + 1)
        if body + size == len(data):
            return Response(header, memoryview(data)[body:], is_end=False)
    # In another order than ours, or with fields of a newer protocol.
    message = pb.StreamBatchesResponse.FromString(data)
    return Response(
        message.header if message.HasField("header") else None,
        memoryview(message.chunk) if message.chunk else None,
        is_end=message.HasField("end"),
    )


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Returns a varint and where it ends."""
    value, shift = 0, 0
    while data[start] & 0x80:
        value |= (data[start] & 0x7F) << shift
        shift, start = shift + 7, start + 1
    return value | data[start] << shift, start + 1


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
        return rows_from_bytes(pa.py_buffer(self._block), trusted=True)


def rows_from_bytes(data: pa.Buffer | bytes, *, trusted: bool) -> pa.RecordBatch:
    """Returns the one record batch of an Arrow IPC stream.

    Args:
        data: The stream.
        trusted: Whether it comes from a server of one's own choice. What comes from a
            client is validated to the last offset before anything reads it.

    Raises:
        ServiceError: It is no such stream.
    """
    try:
        with pa.ipc.open_stream(data) as reader:
            rows = reader.read_next_batch()
        rows.validate(full=not trusted)
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        msg = f"received no valid Arrow IPC stream: {error}"
        raise ServiceError(msg) from error
    return rows
