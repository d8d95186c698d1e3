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
    parts = wire.rows_to_parts(batch)
    collected = wire.Reassembly(sum(len(part) for part in parts))
    sizes = []
    for chunk in wire.chunks_of(parts):
        received = wire.deserialize_response(wire.encode_chunk(chunk))
        assert isinstance(received, memoryview)
        sizes.append(len(received))
        collected.add(received)
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
def test_a_chunk_is_encoded_as_protobuf_has_it(pieces):
    encoded = wire.encode_chunk([memoryview(piece) for piece in pieces])

    assert pb.StreamBatchesResponse.FromString(encoded).chunk == b"".join(pieces)
    expected = pb.StreamBatchesResponse(chunk=b"".join(pieces)).SerializeToString()
    assert encoded == expected
    received = wire.deserialize_response(encoded)
    assert isinstance(received, memoryview)
    assert bytes(received) == b"".join(pieces)


def test_other_responses_are_decoded_as_messages():
    header = pb.StreamBatchesResponse(header=pb.BatchHeader(step=3))
    encoded = wire.serialize_response(header)

    assert wire.deserialize_response(encoded) == header


def test_more_bytes_than_announced_are_refused():
    collected = wire.Reassembly(3)

    with pytest.raises(ServiceError, match=r"3 bytes announced, 4 received"):
        collected.add(memoryview(b"1234"))


@pytest.mark.parametrize("data", [b"", b"no arrow at all", b"\xff\xff\xff\xff\x10"])
def test_bytes_that_are_no_rows_are_refused(data):
    with pytest.raises(ServiceError, match=r"no valid Arrow IPC stream"):
        wire.rows_from_bytes(data)
