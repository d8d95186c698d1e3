"""Batches through a Unix socket: whole, in order, from their server, or an error."""

import contextlib
import mmap
import os
import socket
import sys
import threading

import numpy as np
import pytest

from curator import wire
from curator.errors import ProtocolError, StorageError, UnavailableError
from curator.rpc.v1 import curation_pb2 as pb

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="abstract Unix sockets are Linux's"
)


def batch(step, *sizes):
    """Returns a batch of parts of random bytes."""
    rng = np.random.default_rng(step)
    parts = [memoryview(rng.bytes(size)) for size in sizes]
    return pb.BatchHeader(step=step, payload_bytes=sum(sizes)), parts


@contextlib.contextmanager
def connected():
    """Yields both ends of a connection."""
    listener = wire.UnixListener()
    sender = wire.UnixSender.connect(listener.offer)
    assert sender is not None
    receiver = listener.accept()
    listener.close()
    with contextlib.closing(sender), contextlib.closing(receiver):
        yield sender, receiver


@contextlib.contextmanager
def sending(sender, batches):
    """Sends batches in a thread, and closes; raises what sending raised."""
    errors = []

    def send():
        try:
            for item in batches:
                sender.send(item)
        except UnavailableError as error:
            errors.append(error)
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    yield errors
    thread.join()


def received(receiver):
    blocks = wire.BlockCache()
    while (item := receiver.receive(blocks)) is not None:
        yield item


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [1],
        [5, 0, 7],
        [3000] * 700,
        [1] * 5000,  # more pieces than the kernel takes at once
        [20 << 20, 1],  # more bytes than it holds
    ],
    ids=["none", "a byte", "an empty part", "rows", "pieces", "bytes"],
)
def test_batches_arrive_whole_and_in_order(sizes):
    sent = [batch(step, *sizes) for step in range(3)]
    with connected() as (sender, receiver), sending(sender, sent) as errors:
        arrived = list(received(receiver))

    assert not errors
    assert [header for header, _ in arrived] == [header for header, _ in sent]
    for (_, payload), (_, parts) in zip(arrived, sent, strict=True):
        whole = b"".join(parts)
        assert (payload is None) == (not whole)
        assert payload is None or payload.tobytes() == whole


def test_a_batch_that_is_cut_is_no_batch():
    (header, parts) = batch(0, 10_000)
    encoded = header.SerializeToString()
    frame = len(encoded).to_bytes(4, "little") + encoded + bytes(parts[0])
    for size in (1, 4, 6, len(frame) - 10_000, len(frame) - 1):
        ours, theirs = socket.socketpair()
        receiver = wire.UnixReceiver(ours)
        with contextlib.closing(receiver):
            theirs.sendall(frame[:size])
            theirs.close()
            with pytest.raises(UnavailableError, match="ended within a batch"):
                receiver.receive(wire.BlockCache())


def test_one_end_that_closes_lets_the_other_go_while_it_waits():
    with connected() as (sender, receiver):
        with sending(sender, [batch(0, 64 << 20)]) as errors:
            assert receiver._socket.recv(1)  # it has begun, and cannot end
            receiver.close()
        assert "the Unix socket broke" in str(errors[0])

    with connected() as (sender, receiver):
        with sending(sender, [batch(0, 64 << 20)]) as errors:
            assert receiver._socket.recv(1)
            sender.close()  # as when a server stops: its own thread is let go
        assert "the Unix socket broke" in str(errors[0])

    with connected() as (sender, receiver):
        ended = []
        thread = threading.Thread(target=lambda: ended.extend(received(receiver)))
        thread.start()
        receiver.close()
        thread.join()
        assert ended == []


def test_rows_that_are_cut_from_under_it_are_an_error(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(bytes(1 << 20))
    with path.open("rb") as file:
        rows = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(path, 0)
    with connected() as (sender, _), pytest.raises(StorageError, match="was cut short"):
        sender.send((pb.BatchHeader(payload_bytes=1 << 20), [memoryview(rows)]))


def test_only_the_server_that_knows_the_secret_is_listened_to():
    listener = wire.UnixListener()
    name = f"\0curator-{listener.offer.name.hex()}"
    others = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for other in others:
            stack.enter_context(other).connect(name)
        others[1].sendall(bytes(16))
        others[2].sendall(listener.offer.secret[:-1])
        sender = wire.UnixSender.connect(listener.offer)
        receiver = listener.accept()
        listener.close()
        with contextlib.closing(receiver), sending(sender, [batch(4, 100)]):
            ((header, _),) = received(receiver)

    assert header.step == 4


def test_a_listener_that_others_keep_busy_is_not_waited_for():
    listener = wire.UnixListener()
    name = f"\0curator-{listener.offer.name.hex()}"
    with contextlib.ExitStack() as stack, contextlib.closing(listener):
        with contextlib.suppress(BlockingIOError):
            while True:
                other = stack.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                other.connect(name)

        assert wire.UnixSender.connect(listener.offer) is None


def test_a_server_that_says_it_has_connected_and_has_not():
    listener = wire.UnixListener()
    with (
        contextlib.closing(listener),
        pytest.raises(UnavailableError, match="has not connected"),
    ):
        listener.accept()


def test_a_client_elsewhere_is_not_reached():
    listener = wire.UnixListener()
    offer = listener.offer
    listener.close()

    assert listener.offer == pb.UnixSocket()
    assert wire.UnixSender.connect(offer) is None
    assert wire.UnixSender.connect(pb.UnixSocket()) is None


@pytest.mark.parametrize(
    ("name", "secret"), [(8, 16), (17, 16), (16, 0), (16, 1 << 20)]
)
def test_an_offer_that_is_none_is_refused(name, secret):
    offer = pb.UnixSocket(name=bytes(name), secret=bytes(secret))

    with pytest.raises(ProtocolError, match="16 bytes each"):
        wire.UnixSender.connect(offer)
