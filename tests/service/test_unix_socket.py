"""Batches go through a Unix socket to a client on the server's machine."""

import contextlib
import dataclasses
import math
import os
import queue
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pytest
import worlds
from worlds import UNIFORM, served, train

from curator import wire
from curator.engine import Registry
from curator.errors import (
    LimitError,
    RankStalledError,
    StorageError,
    UnavailableError,
)
from curator.pools import MemoryPool, open_pool
from curator.rpc.v1 import curation_pb2 as pb
from curator.rpc.v1 import curation_pb2_grpc
from curator.samplers import InfoBatch
from curator.service import Server, _server

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="abstract Unix sockets are Linux's"
)
TESTS = Path(__file__).parents[1]

CLIENT = """
import hashlib
import sys

import curator
from curator import wire

received = []
receive = wire.UnixReceiver.receive
wire.UnixReceiver.receive = lambda *args: received.append(1) or receive(*args)
with curator.connect(sys.argv[1]) as service:
    digest = b""
    for batch in service.open("s").batches():
        rows = batch.ids.tobytes() + batch[sys.argv[2]].tobytes()
        digest = hashlib.sha256(digest + rows).digest()
        print(batch.step, flush=True)
print(digest.hex(), bool(received), flush=True)
"""


@contextlib.contextmanager
def raw(tmp_path, *, pool=None, server=None, num_steps=5):
    """Yields a server that serves session ``s``, and its stub."""
    spec = dataclasses.replace(UNIFORM, num_steps=num_steps)
    config = worlds.config(tmp_path, server=server, s=spec)
    registry = Registry(config, {"pairs": pool or MemoryPool(worlds.pairs())})
    server = Server(registry)
    try:
        with grpc.insecure_channel(server.address) as channel:
            yield server, curation_pb2_grpc.CurationServiceStub(channel)
    finally:
        server.stop(grace_seconds=0.0)
        registry.close()


@contextlib.contextmanager
def stream(stub, *, offer=None, credits_=100, world_size=1):
    """Yields the answers of a call, which is cancelled at the end."""
    requests = queue.SimpleQueue()
    start = pb.StreamStart(
        session="s", world_size=world_size, credits=credits_, unix_socket=offer
    )
    requests.put(pb.StreamBatchesRequest(start=start))
    call = stub.StreamBatches(iter(requests.get, None))
    yield call
    requests.put(None)
    call.cancel()


@contextlib.contextmanager
def listening():
    listener = wire.UnixListener()
    with contextlib.closing(listener):
        yield listener


def large_rows():
    """A pool of 200 rows of a megabyte."""
    values = pa.array(np.zeros(200 << 20, np.uint8))
    return MemoryPool(
        pa.table({"data": pa.FixedSizeListArray.from_arrays(values, 1 << 20)})
    )


def test_batches_are_those_of_the_call_and_the_end_comes_through_it(tmp_path):
    with raw(tmp_path) as (_, stub):
        with stream(stub) as call:
            *messages, end = call
        with listening() as listener, stream(stub, offer=listener.offer) as call:
            first = next(call)
            receiver = listener.accept()
            with contextlib.closing(receiver):
                blocks = wire.BlockCache()
                arrived = list(iter(lambda: receiver.receive(blocks), None))
            rest = list(call)

    assert first == pb.StreamBatchesResponse(through_unix_socket=True)
    assert rest == [end]
    assert end.end.num_steps == 5
    parts = [part for message in messages for part in message.parts]
    assert [header for header, _ in arrived] == [part.header for part in parts]
    assert [payload.tobytes() for _, payload in arrived] == [p.chunk for p in parts]


def test_credits_bound_what_is_sent_through_the_socket(tmp_path):
    with (
        raw(tmp_path) as (_, stub),
        listening() as listener,
        stream(stub, offer=listener.offer, credits_=2) as call,
    ):
        next(call)
        receiver = listener.accept()
        blocks = wire.BlockCache()
        with contextlib.closing(receiver):
            arrived = [receiver.receive(blocks) for _ in range(2)]
            call.cancel()
            assert receiver.receive(blocks) is None

    assert [header.step for header, _ in filter(None, arrived)] == [0, 1]


def test_an_error_comes_through_the_call(tmp_path):
    """The other rank never reports, and the session allows nothing ahead of it."""
    spec = dataclasses.replace(UNIFORM, sampler=InfoBatch(), num_epochs=3)
    server = {"stalled_rank_seconds": 0.2}
    config = worlds.config(tmp_path, server=server, s=spec)
    with served(config) as service:
        session = service.open("s", rank=1, world_size=2)
        with pytest.raises(RankStalledError, match="rank 0"):
            train(session, 1000)


def test_an_offer_that_is_none_is_an_error(tmp_path):
    offer = pb.UnixSocket(name=bytes(16), secret=bytes(3))
    with (
        raw(tmp_path) as (_, stub),
        stream(stub, offer=offer) as call,
        pytest.raises(grpc.RpcError) as caught,
    ):
        next(call)

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "16 bytes each" in str(caught.value.details())


def test_a_server_that_stops_cuts_a_client_that_does_not_read(tmp_path):
    with (
        raw(tmp_path, pool=large_rows()) as (server, stub),
        listening() as listener,
        stream(stub, offer=listener.offer) as call,
    ):
        next(call)
        receiver = listener.accept()
        with contextlib.closing(receiver):
            # It has begun to send, and has no room.
            assert receiver._socket.recv(1, socket.MSG_PEEK)
            server.stop(grace_seconds=0.0)
            with pytest.raises(UnavailableError, match="ended within a batch"):
                receiver.receive(wire.BlockCache())


def test_a_pool_that_is_cut_while_it_is_served_is_an_error(tmp_path):
    """Half of it, so that the first batches may end within their rows."""
    path = tmp_path / "pool.arrow"
    values = pa.array(np.zeros(200 << 14, np.uint8))
    rows = pa.FixedSizeListArray.from_arrays(values, 1 << 14)
    with pa.ipc.new_file(path, pa.schema({"data": rows.type})) as writer:
        writer.write_table(pa.table({"data": rows}))
    spec = dataclasses.replace(UNIFORM, num_steps=20)
    config = worlds.config(tmp_path, s=spec)
    with (
        contextlib.closing(open_pool("arrow", path)) as pool,
        served(config, pool=pool) as service,
    ):
        session = service.open("s")
        pool._mapped._next_check = math.inf  # it was just before
        os.truncate(path, 1 << 20)
        with pytest.raises(StorageError, match="was cut short"):
            list(session.batches())


def test_a_client_that_is_killed_gives_its_stream_back(tmp_path):
    server = {"max_streams_per_client": 1}
    with raw(tmp_path, pool=large_rows(), server=server, num_steps=200) as (
        running,
        stub,
    ):
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, running.address, "data"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
        )
        with client:
            assert client.stdout.readline() == "0\n"
            client.send_signal(signal.SIGSTOP)  # the server waits within a batch
            client.kill()
        with stream(stub) as call:
            assert next(call).parts[0].header.step == 0


@pytest.mark.slow
def test_a_client_that_freezes_gives_its_streams_back(tmp_path, monkeypatch):
    monkeypatch.setattr(_server, "KEEPALIVE_MS", 1000)
    config = worlds.config(tmp_path, server={"max_streams_per_client": 1}, s=UNIFORM)
    with served(config) as service:
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, service._transport._target, "number"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
        )
        with client:
            assert client.stdout.readline() == "0\n"
            client.send_signal(signal.SIGSTOP)
            session = service.open("s")
            while True:
                try:
                    assert next(session.batches()).step == 0
                    break
                except LimitError:
                    session.close()
            client.kill()


def test_a_client_that_cannot_be_reached_has_its_batches_through_the_call(tmp_path):
    """Another network namespace, as containers have, and the same file of a socket."""
    hidden = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a network namespace")
    config = worlds.config(
        tmp_path,
        server={"listen": f"unix:{tmp_path}/s"},
        s=dataclasses.replace(UNIFORM, num_steps=12),
    )
    said = []
    with served(config) as service:
        for prefix in ([], hidden):
            command = [*prefix, sys.executable, "-c", CLIENT]
            done = subprocess.run(
                [*command, service._transport._target, "image"],
                capture_output=True,
                text=True,
                cwd=TESTS,
            )
            assert done.returncode == 0, done.stderr
            said.append(done.stdout.split()[-2:])

    (digest, is_through_socket), (same_digest, is_too) = said
    assert digest == same_digest
    assert (is_through_socket, is_too) == ("True", "False")
