"""Rows as an Arrow IPC stream in parts that lie where they lay, and back."""

from __future__ import annotations

import functools
import struct
import threading
import weakref
from typing import cast

import numpy as np
import pyarrow as pa

from curator.errors import FeatureError, ServiceError
from curator.pools import RowSpans, zero_rows

__all__ = [
    "BlockCache",
    "Reassembly",
    "rows_from_bytes",
    "rows_to_parts",
    "spans_to_parts",
]


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


def spans_to_parts(spans: RowSpans) -> list[memoryview]:
    """Returns the Arrow IPC stream of rows that were not gathered: see RowSpans."""
    parts: list[memoryview] = []
    for piece in _template(_Same(spans.schema), spans.num_rows):
        if isinstance(piece, int):
            parts.extend(spans.columns[piece])
        else:
            parts.append(piece)
    return parts


class _Same:
    """A schema that equals itself only: pools give the same one each time.

    To compute a schema's hash for each batch took 7 % of the time to send small ones.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.schema is other.schema


@functools.lru_cache(maxsize=64)
def _template(same: _Same, num_rows: int) -> list[memoryview | int]:
    """Returns the parts of a stream of rows of fixed width, columns by their number.

    Such streams differ in the columns' bytes and in nothing else.
    """
    rows = zero_rows(same.schema, num_rows)
    where = {_data_address(column): i for i, column in enumerate(rows.columns)}
    pieces: list[memoryview | int] = []
    for part in rows_to_parts(rows):
        number = where.get(np.frombuffer(part, np.uint8).ctypes.data)
        pieces.append(memoryview(bytes(part)) if number is None else number)
    return pieces


def _data_address(column: pa.Array) -> int:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    data = column.buffers()[-1]
    assert data is not None
    return data.address


class BlockCache:
    """Blocks of memory that are used again when nothing points into them any more.

    A large block fresh from the operating system costs as much to touch for the first
    time as to fill. Safe to use from several threads.
    """

    def __init__(self, max_blocks: int = 4) -> None:
        self._max_blocks = max_blocks
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> np.ndarray:
        """Returns a block; it comes back when it, and all views of it, are gone."""
        with self._lock:
            fitting = [i for i, b in enumerate(self._free) if len(b) >= num_bytes]
            if fitting:
                whole = self._free.pop(min(fitting, key=lambda i: len(self._free[i])))
            else:
                self._free.clear()  # batches have grown: these fit none any more
                whole = np.empty(num_bytes, np.uint8)
        lease = whole[:num_bytes]
        weakref.finalize(lease, self._give_back, whole)
        return lease

    def _give_back(self, block: np.ndarray) -> None:
        # From any thread at any time, also within take(): without the lock, since
        # append is atomic and only adds behind what take() looks at.
        if len(self._free) < self._max_blocks:
            self._free.append(block)


class Reassembly:
    """Collects the chunks of one payload in one block of memory."""

    def __init__(self, block: np.ndarray) -> None:
        self._block = block
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
        self._block[self._size : stop] = np.frombuffer(chunk, np.uint8)
        self._size = stop

    def rows(self) -> pa.RecordBatch:
        """Returns the rows, whose columns point into the collected bytes."""
        return rows_from_bytes(pa.py_buffer(self._block), trusted=True)


def rows_from_bytes(
    data: pa.Buffer | bytes | memoryview, *, trusted: bool
) -> pa.RecordBatch:
    """Returns the one record batch of an Arrow IPC stream; its columns point into it.

    Args:
        data: The stream.
        trusted: Whether it comes from a server of one's own choice. What comes from a
            client has columns of fixed width and is not compressed, so that it takes
            the memory that it was sent in and no more, and is validated to the last
            bit before anything reads it.

    Raises:
        ServiceError: It is no such stream.
        FeatureError: It is none, and not trusted: the client's mistake.
    """
    try:
        if not trusted:
            return _checked_rows(data)
        with pa.ipc.open_stream(data) as reader:
            return reader.read_next_batch()
    except (
        pa.ArrowException,
        OSError,
        StopIteration,
        ValueError,
        struct.error,
    ) as error:
        error_class = ServiceError if trusted else FeatureError
        msg = f"received no valid Arrow IPC stream: {error}"
        raise error_class(msg) from error


def _checked_rows(data: pa.Buffer | bytes | memoryview) -> pa.RecordBatch:
    """Returns the one record batch of a stream that may say anything.

    Raises:
        ValueError: It says something that is not allowed, or not true.
        pa.ArrowException, StopIteration: It is no stream.
    """
    messages = pa.ipc.MessageReader.open_stream(data)
    schema = pa.ipc.read_schema(_next_message(messages, "schema"))
    if len(set(schema.names)) < len(schema):
        msg = "two columns of the same name"
        raise ValueError(msg)
    for field in schema:
        if not _is_plain(field.type):
            msg = f"column {field.name!r} of type {field.type} is not of fixed width"
            raise ValueError(msg)
    message = _next_message(messages, "record batch")
    if _is_compressed(message.metadata.to_pybytes()):
        msg = "the rows are compressed; send them as they are"
        raise ValueError(msg)
    rows = pa.ipc.read_record_batch(message, schema)
    rows.validate(full=True)
    return rows


def _next_message(messages: pa.ipc.MessageReader, kind: str) -> pa.ipc.Message:
    """Returns the next message, which has to be of a kind: Arrow trusts its caller."""
    message = messages.read_next_message()
    if message.type != kind:
        msg = f"expected a message of kind {kind!r}; got {message.type!r}"
        raise ValueError(msg)
    return message


def _is_plain(dtype: pa.DataType) -> bool:
    """Whether rows of a type all take the same memory, and take some."""
    if isinstance(dtype, pa.BaseExtensionType):
        dtype = dtype.storage_type
    if pa.types.is_fixed_size_list(dtype):
        return dtype.list_size > 0 and _is_plain(dtype.value_type)
    if pa.types.is_fixed_size_binary(dtype):
        return dtype.byte_width > 0
    return pa.types.is_primitive(dtype) or pa.types.is_decimal(dtype)


def _is_compressed(metadata: bytes) -> bool:
    """Whether the flatbuffer of a record batch's message names a compression.

    Arrow would undo it without a limit, and tells nobody before it does. The fields are
    those of Message.fbs in the Arrow format: Message.header is the third, and
    RecordBatch.compression the fourth. PyArrow has verified the flatbuffer.
    """
    (root,) = struct.unpack_from("<I", metadata, 0)
    header = _flatbuffer_field(metadata, root, 2)
    if header is None:
        msg = "a record batch without a header"
        raise ValueError(msg)
    (offset,) = struct.unpack_from("<I", metadata, header)
    return _flatbuffer_field(metadata, header + offset, 3) is not None


def _flatbuffer_field(data: bytes, table: int, number: int) -> int | None:
    """Returns where a field of a table lies, None where it is left out."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * number
    if entry >= vtable_bytes:
        return None
    (offset,) = struct.unpack_from("<H", data, vtable + entry)
    return table + offset if offset else None
