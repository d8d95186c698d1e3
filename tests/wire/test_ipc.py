"""Rows in chunks: cut, sent, collected, and equal."""

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from curator import wire
from curator.errors import ServiceError
from curator.rpc.v1 import curation_pb2 as pb


def rows(num_rows, width=16):
    values = np.arange(num_rows * width, dtype=np.float32).reshape(num_rows, width)
    kind = pa.fixed_shape_tensor(pa.float32(), [width])
    flat = pa.FixedSizeListArray.from_arrays(values.reshape(-1), width)
    tensor = pa.ExtensionArray.from_storage(kind, flat)
    names = pa.array([f"name {i}" * (i % 3) for i in range(num_rows)])
    return pa.record_batch({"tensor": tensor, "name": names})


def transfer(batch):
    """Sends a batch as messages; returns what arrives, and the sizes of the chunks."""
    sent = pb.BatchHeader(step=3)
    header, sizes, collected = None, [], None
    for message in wire.batch_messages(sent, wire.rows_to_parts(batch)):
        response = wire.deserialize_response(message)
        assert (response.header is None) == (header is not None)  # only the first
        header = header or response.header
        collected = collected or wire.Reassembly(header.payload_bytes)
        assert response.chunk is not None
        sizes.append(len(response.chunk))
        collected.add(response.chunk)
    assert header.step == 3
    assert collected.is_complete
    return collected.rows(), sizes


@pytest.mark.parametrize("num_rows", [0, 1, 7, 1000])
def test_rows_survive_the_wire(num_rows):
    received, _ = transfer(rows(num_rows))

    assert received.equals(rows(num_rows))


def test_large_rows_travel_in_chunks_of_the_size_the_protocol_promises():
    batch = rows(100, width=50_000)

    received, sizes = transfer(batch)

    assert received.equals(batch)
    assert all(1 << 20 <= size <= 4 << 20 for size in sizes[:-1])
    assert sum(sizes) >= 100 * 50_000 * 4


def test_large_buffers_are_not_copied_when_cut():
    batch = rows(10, width=50_000)
    address = batch.column(0).storage.flatten().buffers()[1].address

    addresses = [
        np.frombuffer(part, np.uint8).ctypes.data
        for part in wire.rows_to_parts(batch)
        if len(part)
    ]

    assert address in addresses


@hypothesis.given(st.lists(st.binary(max_size=300), max_size=5))
@hypothesis.settings(max_examples=100, deadline=None)
def test_messages_are_encoded_as_protobuf_has_them(pieces):
    header = pb.BatchHeader(step=7, late=True)
    parts = [memoryview(piece) for piece in pieces]
    body = b"".join(pieces)

    messages = list(wire.batch_messages(header, parts))

    expected = pb.StreamBatchesResponse(header=header)
    if body:
        expected.chunk = body
    assert messages == [expected.SerializeToString()]
    assert header.payload_bytes == len(body)
    received = wire.deserialize_response(messages[0])
    assert received.header == header
    assert bytes(received.chunk or b"") == body


@pytest.mark.parametrize(
    "data",
    [
        b"\x12\x01a\x0a\x02\x08\x05",  # the chunk before the header
        b"\x0a\x02\x08\x05\x12\x01a\x22\x00",  # and a field of a newer protocol
    ],
)
def test_messages_of_other_writers_are_understood(data):
    received = wire.deserialize_response(data)

    assert received.header == pb.BatchHeader(step=5)
    assert bytes(received.chunk or b"") == b"a"


def test_the_end_is_understood():
    end = pb.StreamBatchesResponse(end=pb.StreamEnd(num_steps=3))

    received = wire.deserialize_response(wire.serialize_response(end))

    assert received == (None, None, True)


def test_more_bytes_than_announced_are_refused():
    collected = wire.Reassembly(3)

    with pytest.raises(ServiceError, match=r"3 bytes announced, 4 received"):
        collected.add(memoryview(b"1234"))


@pytest.mark.parametrize("data", [b"", b"no arrow at all", b"\xff\xff\xff\xff\x10"])
def test_bytes_that_are_no_rows_are_refused(data):
    with pytest.raises(ServiceError, match=r"no valid Arrow IPC stream"):
        wire.rows_from_bytes(data, trusted=False)
