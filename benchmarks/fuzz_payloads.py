"""Malformed Arrow IPC streams and safetensors files, and bytes gone bad in general."""

from __future__ import annotations

import functools
import io
import json
import struct
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

__all__ = ["hostile_arrow", "hostile_weights", "mangled"]

Rng: TypeAlias = np.random.Generator


def mangled(data: bytes, rng: Rng) -> bytes:
    """Returns bytes with a few flipped, cut out, cut off, repeated or put in."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(result) + 1))
        length = int(rng.integers(1, 20))
        match int(rng.integers(6)):
            case 0 if at < len(result):
                result[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(result):
                result[at] = int(rng.choice([0, 1, 127, 128, 254, 255]))
            case 2:
                del result[at : at + length]
            case 3:
                del result[at:]
            case 4:
                result[at:at] = result[max(0, at - length) : at]
            case _:
                result[at:at] = rng.bytes(length)
    return bytes(result)


# --- Arrow ---------------------------------------------------------------------------


def hostile_arrow(session: str, num_rows: int, rng: Rng) -> bytes:
    """Returns features as an Arrow IPC stream, right or wrong.

    Args:
        session: Which session's policy it would be for: its columns.
        num_rows: How many rows would be right.
        rng: Where chance comes from.
    """
    if rng.random() < 0.5:
        streams = _odd_streams(num_rows)
        data = streams[int(rng.integers(len(streams)))]
    else:
        data = _right_stream(session, num_rows, _odd_number(rng))
    return mangled(data, rng) if rng.random() < 0.6 else data


def _odd_number(rng: Rng) -> float | None:
    odd = [None, None, np.nan, np.inf, -np.inf, 3e38, -1.0]
    return odd[int(rng.integers(len(odd)))]


def _right_columns(session: str, num_rows: int, odd: float | None) -> dict[str, Any]:
    rng = np.random.default_rng(num_rows)
    losses = rng.random(num_rows).astype(np.float32)
    wide = rng.standard_normal((num_rows, 4)).astype(np.float32)
    if odd is not None:
        losses[0] = wide[0, 0] = odd
    if session == "joint":
        return {
            f"{role}.embeddings.{side}": _lists(wide)
            for role in ("learner", "reference")
            for side in ("queries", "targets")
        }
    if session == "uds":
        return {"learner.nuclear_norm": losses, "learner.projection": _lists(wide)}
    return {"learner.loss": losses, "reference.loss": losses[::-1]}


@functools.lru_cache(maxsize=64)
def _right_stream(session: str, num_rows: int, odd: float | None) -> bytes:
    return _ipc(pa.RecordBatch.from_pydict(_right_columns(session, num_rows, odd)))


@functools.cache
def _odd_streams(num_rows: int) -> list[bytes]:
    """Returns valid streams of columns that are not features."""
    loss = np.ones(num_rows, np.float32)
    nested = pa.array([[[1.0]]] * num_rows)
    columns: list[dict[str, Any]] = [
        {},
        {"learner.loss": np.arange(num_rows)},
        {"learner.loss": loss.astype(np.float64), "reference.loss": loss},
        {"learner.loss": loss.astype(np.float16), "reference.loss": loss},
        {"learner.loss": ["x"] * num_rows},
        {"learner.loss": [None] * num_rows},
        {"learner.loss": pa.array([1.0] + [None] * (num_rows - 1), pa.float32())},
        {"learner.loss": pa.array(["x"] * num_rows).dictionary_encode()},
        {"learner.loss": nested, "reference.loss": nested},
        {"learner.loss": loss[:-1], "reference.loss": loss[:-1]},
        {"learner.loss": loss[:0], "reference.loss": loss[:0]},
        {"learner.loss": pa.nulls(num_rows)},
        {"learner.loss": pa.array([{"a": 1.0}] * num_rows)},
        {"learner.loss": pa.array([b"\xff"] * num_rows)},
        {"learner.loss": pa.array([True] * num_rows)},
        {"learner.embeddings.queries": _lists(np.ones((num_rows, 4), np.float32))},
        {"learner.embeddings": loss, "../loss": loss, "": loss, "a" * 10_000: loss},
        {f"learner.{'a' * (i + 1)}": loss for i in range(200)},
        {
            f"{role}.embeddings.{side}": _lists(np.ones((num_rows, width), np.float32))
            for role, width in (("learner", 4), ("reference", 1))
            for side in ("queries", "targets")
        },
        {
            "learner.nuclear_norm": loss,
            "learner.projection": _lists(np.ones((num_rows, 1), np.float64)),
        },
    ]
    streams = [_ipc(pa.RecordBatch.from_pydict(c)) for c in columns]
    for compression in ("lz4", "zstd"):
        wide = {"learner.loss": np.ones(10 * num_rows, np.float32)}
        options = pa.ipc.IpcWriteOptions(compression=compression)
        streams.append(_ipc(pa.RecordBatch.from_pydict(wide), options))
    two = ["learner.loss", "learner.loss"]
    streams.append(_ipc(pa.RecordBatch.from_arrays([pa.array(loss)] * 2, two)))
    streams += [_ipc(rows) for rows in _bad_offsets(num_rows)]
    streams.append(_ipc(pa.RecordBatch.from_pydict({"a": loss}))[:-8])
    return streams


def _bad_offsets(num_rows: int) -> list[pa.RecordBatch]:
    """Returns rows whose buffers are shorter than they say, or point outside."""
    batches: list[pa.RecordBatch] = []
    values = pa.array(np.ones(num_rows, np.float32))
    for bad in (-1, 2**31 - 1, 10**6):
        offsets = np.arange(num_rows + 1, dtype=np.int32)
        offsets[num_rows // 2] = bad
        buffers = [None, pa.py_buffer(offsets.tobytes())]
        lists = pa.Array.from_buffers(
            pa.list_(pa.float32()), num_rows, buffers, children=[values]
        )
        text = [*buffers, pa.py_buffer(b"x" * num_rows)]
        strings = pa.Array.from_buffers(pa.string(), num_rows, text)
        batches += [
            pa.RecordBatch.from_arrays([lists], ["learner.loss"]),
            pa.RecordBatch.from_arrays([strings], ["learner.loss"]),
        ]
    return batches


def _lists(array: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _ipc(rows: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


# --- safetensors ---------------------------------------------------------------------


def hostile_weights(weights: bytes, rng: Rng) -> bytes:
    """Returns a safetensors file that is wrong in one way or another.

    What is changed is the header, or its length: other numbers are valid weights.
    """
    size = int.from_bytes(weights[:8], "little")
    header: dict[str, Any] = json.loads(weights[8 : 8 + size])
    body = weights[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name = str(rng.choice(names))
    entry = header[name]
    lengths = (0, 1, size - 1, size + 1, len(weights), 10**8, 2**63, 2**64 - 1)
    match int(rng.integers(12)):
        case 0:
            bad = int(rng.choice(np.array(lengths, np.uint64)))
            return struct.pack("<Q", bad) + weights[8:]
        case 1:
            return weights[:8] + mangled(weights[8 : 8 + size], rng) + body
        case 2:
            return weights[: int(rng.integers(len(weights)))]
        case 3:
            entry["data_offsets"] = [
                int(rng.choice([0, 4, 1, -1, 10**9, 2**63 - 1])) for _ in range(2)
            ]
        case 4:
            kinds = ["I8", "F64", "BF16", "F8_E4M3", "F4", "BOOL", "X", "", 3, None]
            entry["dtype"] = kinds[int(rng.integers(len(kinds)))]
        case 5:
            shapes: list[Any] = [[], [0], [-1], [2**63 - 1, 2], [2**32, 2**32], None]
            shapes += [[1] * 1000, "x", [1.5], [[1]]]
            entry["shape"] = shapes[int(rng.integers(len(shapes)))]
        case 6:
            del header[name]
        case 7:
            header[str(rng.choice(["x", "", "../x", "\0", "a" * 10_000]))] = entry
        case 8:
            header[f"module.{name}"] = entry
        case 9:
            header["__metadata__"] = [{"a": 1}, {"a": "b"}, "x", None][rng.integers(4)]
        case 10:
            header = {"a": json.loads("[" * 200 + "]" * 200)}
        case _:
            return rng.bytes(int(rng.integers(100)))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body
