"""Batches as messages of a stream, with one copy on the way out and none on the way in.

The generated message class would copy each chunk three times on the way out and twice
on the way in, which halves the rate on a loopback; so ``StreamBatchesResponse`` is
encoded and decoded here, as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from curator.rpc.v1 import curation_pb2 as pb

__all__ = [
    "CHUNK_BYTES",
    "MESSAGE_BYTES",
    "EncodedBatch",
    "Part",
    "Response",
    "batch_messages",
    "chunks_of",
    "deserialize_response",
    "serialize_response",
]

# Of 1 to 4 MiB, where gRPC in Python streams fastest, the size that measured best.
CHUNK_BYTES = 2 << 20
# Field 1 of StreamBatchesResponse, and fields 1 to 3 of BatchPart; all of wire type 2.
_PARTS_TAG = 0x0A
_HEADER_TAG, _PADDING_TAG, _CHUNK_TAG = 0x0A, 0x12, 0x1A
# Any type that Arrow has may lie at a multiple of this; what a message is received in
# begins at one.
_ALIGNMENT = 16
_VARINT_BYTES = 5
# What small batches are put together to: enough that a message costs little beside its
# bytes, and not so much that one end waits for the other.
MESSAGE_BYTES = 5 << 18

EncodedBatch: TypeAlias = tuple[pb.BatchHeader, Sequence[memoryview]]
"""A header, and the parts of its rows' Arrow IPC stream (none: no rows)."""


def chunks_of(parts: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """Yields the parts regrouped and cut into chunks of ``CHUNK_BYTES`` at most."""
    chunk: list[memoryview] = []
    room = CHUNK_BYTES
    for part in parts:
        start = 0
        while len(part) - start >= room:
            chunk.append(part[start : start + room])
            yield chunk
            start, chunk, room = start + room, [], CHUNK_BYTES
        if start < len(part):
            chunk.append(part[start:] if start else part)
            room -= len(part) - start
    if chunk:
        yield chunk


def batch_messages(batches: Iterable[EncodedBatch]) -> Iterator[bytes]:
    """Yields the encoded responses of some batches.

    Batches are put in one message up to ``MESSAGE_BYTES``; one that is larger is cut.
    The headers say in ``payload_bytes`` how many bytes the parts have.
    """
    pieces: list[bytes | memoryview] = []
    position = chunk_bytes = 0
    for header, parts in batches:
        size = header.payload_bytes
        encoded: bytes | None = header.SerializeToString()
        for chunk in [parts] if size <= CHUNK_BYTES else chunks_of(parts):
            length = min(size, CHUNK_BYTES)
            if pieces and chunk_bytes + length > MESSAGE_BYTES:
                yield b"".join(pieces)
                pieces, position, chunk_bytes = [], 0, 0
            prefix = _part_prefix(position, encoded, length)
            pieces.append(prefix)
            pieces.extend(chunk)
            position += len(prefix) + length
            chunk_bytes += length
            size -= length
            encoded = None
    if pieces:
        yield b"".join(pieces)


def _part_prefix(position: int, header: bytes | None, chunk_bytes: int) -> bytes:
    """Returns what comes before the chunk of a part.

    Args:
        position: Where in the message the part begins.
        header: The encoded header; None for none.
        chunk_bytes: The size of the chunk; 0 for none.
    """
    body = b""
    if header is not None:
        body = bytes([_HEADER_TAG]) + _varint(len(header)) + header
    if chunk_bytes:
        # Tags and lengths of the part, of the padding and of the chunk.
        fixed = 3 * (1 + _VARINT_BYTES)
        padding = -(position + fixed + len(body)) % _ALIGNMENT
        body += bytes([_PADDING_TAG]) + _varint(padding) + bytes(padding)
        body += bytes([_CHUNK_TAG]) + _varint(chunk_bytes)
    return bytes([_PARTS_TAG]) + _varint(len(body) + chunk_bytes) + body


def serialize_response(response: pb.StreamBatchesResponse | bytes) -> bytes:
    """Returns a response encoded; those of batches are so already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


class Part(NamedTuple):
    """A decoded ``BatchPart``.

    Attributes:
        header: The header, if a batch begins here.
        chunk: The bytes of a chunk, a view into the message; empty for none.
    """

    header: pb.BatchHeader | None
    chunk: memoryview


class Response(NamedTuple):
    """A decoded ``StreamBatchesResponse``.

    Attributes:
        parts: Its parts.
        is_end: Whether the session is over.
        through_unix_socket: Whether the batches come through the client's socket.
    """

    parts: list[Part]
    is_end: bool
    through_unix_socket: bool


def deserialize_response(data: bytes) -> Response:
    """Returns a response whose chunks are not copied out of ``data``."""
    view = memoryview(data)
    parts: list[Part] = []
    position = 0
    while position < len(data) and data[position] == _PARTS_TAG:
        size, start = _read_varint(data, position + 1)
        position = start + size
        part = _read_part(view, data, start, position)
        if part is None:
            break
        parts.append(part)
    else:
        if position == len(data) and parts:
            return Response(parts, is_end=False, through_unix_socket=False)
    # The end; or in another order than ours, or with fields of a newer protocol.
    message = pb.StreamBatchesResponse.FromString(data)
    return Response(
        [
            Part(
                part.header if part.HasField("header") else None,
                memoryview(part.chunk),
            )
            for part in message.parts
        ],
        is_end=message.HasField("end"),
        through_unix_socket=message.through_unix_socket,
    )


def _read_part(view: memoryview, data: bytes, start: int, stop: int) -> Part | None:
    """Returns a part whose fields are in our order; None for any other."""
    header, chunk = None, view[:0]
    for tag in (_HEADER_TAG, _PADDING_TAG, _CHUNK_TAG):
        if start < stop and data[start] == tag:
            size, body = _read_varint(data, start + 1)
            start = body + size
            if tag == _HEADER_TAG:
                header = pb.BatchHeader.FromString(data[body:start])
            elif tag == _CHUNK_TAG:
                chunk = view[body:start]
    return Part(header, chunk) if start == stop else None


def _varint(value: int) -> bytes:
    """Returns a varint of five bytes, whatever the value: then positions are known."""
    return bytes(
        [value >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)] + [value >> 28]
    )


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Returns a varint and where it ends."""
    value, shift = 0, 0
    while data[start] & 0x80:
        value |= (data[start] & 0x7F) << shift
        shift, start = shift + 7, start + 1
    return value | data[start] << shift, start + 1
