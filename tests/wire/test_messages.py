"""Batches as messages: put together, cut, sent, collected, and equal."""

import threading

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from curator import wire
from curator.columns import column_to_numpy
from curator.errors import FeatureError, ServiceError
from curator.pools import MemoryPool
from curator.rpc.v1 import curation_pb2 as pb


def rows(num_rows, width=16):
    values = np.arange(num_rows * width, dtype=np.float32).reshape(num_rows, width)
    kind = pa.fixed_shape_tensor(pa.float32(), [width])
    flat = pa.FixedSizeListArray.from_arrays(values.reshape(-1), width)
    tensor = pa.ExtensionArray.from_storage(kind, flat)
    names = pa.array([f"name {i}" * (i % 3) for i in range(num_rows)])
    return pa.record_batch({"tensor": tensor, "name": names})


def transfer(*batches):
    """Sends batches as messages; returns what arrives, and the messages."""
    encoded = [wire.rows_to_parts(batch) for batch in batches]
    sent = [
        (pb.BatchHeader(step=step, payload_bytes=sum(map(len, parts))), parts)
        for step, parts in enumerate(encoded)
    ]
    messages = list(wire.batch_messages(sent))
    received, headers, collected = [], [], None
    for message in messages:
        for header, chunk in wire.deserialize_response(message).parts:
            assert (header is None) == (collected is not None)
            if header is not None:
                headers.append(header)
                block = wire.BlockCache().take(header.payload_bytes)
                collected = wire.Reassembly(block)
            collected.add(chunk)
            if collected.is_complete:
                received.append(collected.rows())
                collected = None
    assert collected is None
    assert [header.step for header in headers] == list(range(len(batches)))
    return received, messages


@pytest.mark.parametrize("num_rows", [0, 1, 7, 1000])
def test_rows_survive_the_wire(num_rows):
    received, _ = transfer(rows(num_rows))

    assert received == [rows(num_rows)]


def test_small_batches_travel_together_and_large_ones_in_chunks():
    small = [rows(n, width=4) for n in (3, 500, 9)]
    batches = [*small, rows(1000, width=400), rows(100, width=50_000)]

    received, messages = transfer(*batches)

    assert received == batches
    parts = [wire.deserialize_response(message).parts for message in messages]
    assert [header.step for header, _ in parts[0]] == [0, 1, 2]
    assert [header.step for header, _ in parts[1]] == [3]
    sizes = [len(part.chunk) for message in parts[2:] for part in message]
    assert all(1 << 20 <= size <= 4 << 20 for size in sizes[:-1])
    assert sum(sizes) >= 100 * 50_000 * 4
    assert max(map(len, messages)) < 4 << 20  # what gRPC takes by default


def test_chunks_can_be_used_where_they_lie():
    batches = [rows(n, width=3) for n in range(1, 30)]

    for message in transfer(*batches)[1]:
        start = np.frombuffer(message, np.uint8).ctypes.data
        for _, chunk in wire.deserialize_response(message).parts:
            address = np.frombuffer(chunk, np.uint8).ctypes.data
            assert start <= address < start + len(message)  # not a copy
            assert (address - start) % 16 == 0
            received = wire.rows_from_bytes(pa.py_buffer(chunk), trusted=True)
            assert column_to_numpy(received.column("tensor")).flags.aligned


def test_large_buffers_are_not_copied_when_cut():
    batch = rows(10, width=50_000)
    address = batch.column(0).storage.flatten().buffers()[1].address

    addresses = [
        np.frombuffer(part, np.uint8).ctypes.data
        for part in wire.rows_to_parts(batch)
        if len(part)
    ]

    assert address in addresses


@hypothesis.given(st.lists(st.lists(st.binary(max_size=300), max_size=5), max_size=4))
@hypothesis.settings(max_examples=100, deadline=None)
def test_messages_are_protobuf(batches):
    bodies = [b"".join(pieces) for pieces in batches]
    sent = [
        (
            pb.BatchHeader(step=step, payload_bytes=len(body)),
            [memoryview(piece) for piece in pieces],
        )
        for step, (pieces, body) in enumerate(zip(batches, bodies, strict=True))
    ]

    messages = list(wire.batch_messages(sent))

    assert len(messages) == min(1, len(batches))
    for message in messages:
        parsed = pb.StreamBatchesResponse.FromString(message)
        assert [part.header for part in parsed.parts] == [header for header, _ in sent]
        assert [part.chunk for part in parsed.parts] == bodies
        ours = wire.deserialize_response(message)
        assert [(h, bytes(c)) for h, c in ours.parts] == [
            (part.header, part.chunk) for part in parsed.parts
        ]
        assert not ours.is_end


@pytest.mark.parametrize(
    "part",
    [
        b"\x1a\x01a\x0a\x02\x08\x05",  # the chunk before the header
        b"\x0a\x02\x08\x05\x1a\x01a\x22\x00",  # and a field of a newer protocol
        b"\x0a\x02\x08\x05\x1a\x01a",
    ],
)
@pytest.mark.parametrize("more", [b"", b"\x1a\x00"])
def test_messages_of_other_writers_are_understood(part, more):
    received = wire.deserialize_response(b"\x0a" + bytes([len(part)]) + part + more)

    assert [(h, bytes(c)) for h, c in received.parts] == [
        (pb.BatchHeader(step=5), b"a")
    ]


def test_the_end_is_understood():
    end = pb.StreamBatchesResponse(end=pb.StreamEnd(num_steps=3))

    received = wire.deserialize_response(wire.serialize_response(end))

    assert received == ([], True, False)


def test_more_bytes_than_announced_are_refused():
    collected = wire.Reassembly(wire.BlockCache().take(3))

    with pytest.raises(ServiceError, match=r"3 bytes announced, 4 received"):
        collected.add(memoryview(b"1234"))


@pytest.mark.parametrize("data", [b"", b"no arrow at all", b"\xff\xff\xff\xff\x10"])
def test_bytes_that_are_no_rows_are_refused(data):
    with pytest.raises(FeatureError, match=r"no valid Arrow IPC stream"):
        wire.rows_from_bytes(data, trusted=False)


def test_rows_that_were_not_gathered_travel_as_gathered_ones_do():
    table = pa.table(
        {
            "wide": rows(60, width=500).column("tensor"),
            "id": pa.array(np.arange(60)),
            "name": pa.array([f"name {i}" for i in range(60)]),
        }
    )
    parts = [table.slice(start, 20) for start in (0, 20, 40)]
    pool = MemoryPool(pa.concat_tables(parts))
    ids = np.array([59, 3, 3, 41, 0, 20])

    for columns in (["wide"], ["id", "wide"], ["wide", "id"], ["id"]):
        spans = pool.spans(ids, columns)
        assert spans is not None
        received = wire.rows_from_bytes(
            b"".join(wire.spans_to_parts(spans)), trusted=False
        )
        assert received.equals(pool.take(ids, columns))
        assert received.schema == pool.take(ids, columns).schema
    assert pool.spans(ids) is None  # strings lie where they lie


def test_blocks_are_used_again_and_never_while_anything_points_into_them():
    cache = wire.BlockCache()
    first = cache.take(1000)
    address = first.ctypes.data
    view = pa.py_buffer(first)
    del first
    other = cache.take(1000)
    assert other.ctypes.data != address  # `view` is still there
    del view
    again = cache.take(900)

    assert again.ctypes.data == address
    assert len(again) == 900


def test_blocks_are_nobody_elses_while_threads_share_the_cache():
    cache = wire.BlockCache()
    wrong = []

    def work(number):
        for size in range(1, 400):
            block = cache.take(1000 + size % 7)
            block[:] = number
            if (block != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
