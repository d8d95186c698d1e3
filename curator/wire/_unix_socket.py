"""Batches through a socket of this machine, past gRPC and the network stack.

As ``StreamBatches`` describes it in the protocol: the client listens, the server
connects. So the server answers nobody whom it has not answered through the call, and
needs no port.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Sequence

import numpy as np

from curator.errors import ProtocolError, StorageError, UnavailableError
from curator.rpc.v1 import curation_pb2 as pb
from curator.wire._messages import EncodedBatch
from curator.wire._rows import BlockCache

__all__ = ["UnixListener", "UnixReceiver", "UnixSender"]

_TOKEN_BYTES = 16
_SIZE = struct.Struct("<I")
# How many pieces of memory the kernel takes at once (IOV_MAX).
_MOST_PIECES = 1024
# Connections that may wait: whoever can list the machine's sockets can make some.
_MOST_WAITING = 16
# What the kernel holds of a stream, where net.core.wmem_max lets it: with room for
# several small batches, the two ends need not wake each other within each.
_KERNEL_BYTES = 2 << 20


def _address(name: bytes) -> str:
    return f"\0curator-{name.hex()}"


class UnixListener:
    """Where a client waits for the server of one stream."""

    def __init__(self) -> None:
        """Listens, where that is possible: see :attr:`offer`."""
        self._offer = pb.UnixSocket(
            name=secrets.token_bytes(_TOKEN_BYTES),
            secret=secrets.token_bytes(_TOKEN_BYTES),
        )
        self._socket: socket.socket | None = None
        if sys.platform != "linux":  # no other system has sockets without a file
            return
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(_address(self._offer.name))
            listening.listen(_MOST_WAITING)
            listening.setblocking(False)
        except OSError:  # a sandbox that has none of these
            listening.close()
        else:
            self._socket = listening

    @property
    def offer(self) -> pb.UnixSocket:
        """What to tell the server; empty where there is no socket."""
        return pb.UnixSocket() if self._socket is None else self._offer

    def accept(self) -> UnixReceiver:
        """Returns the server's connection, once it has said that there is one.

        Raises:
            UnavailableError: There is none.
        """
        while self._socket is not None:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                break
            try:
                # The server has sent it before it said so; others do not know it.
                secret = connection.recv(_TOKEN_BYTES, socket.MSG_DONTWAIT)
            except OSError:
                secret = b""
            if hmac.compare_digest(secret, self._offer.secret):
                connection.setblocking(True)
                return UnixReceiver(connection)
            connection.close()
        msg = "the server has not connected to this client's Unix socket"
        raise UnavailableError(msg)

    def close(self) -> None:
        """Stops listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class UnixReceiver:
    """The client's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reading = threading.Lock()

    def receive(
        self, blocks: BlockCache
    ) -> tuple[pb.BatchHeader, np.ndarray | None] | None:
        """Returns the next batch's header and payload, None where the server closed.

        Args:
            blocks: Where the payload's memory comes from.

        Raises:
            UnavailableError: The connection ended within a batch.
        """
        with self._reading:
            try:
                size = self._socket.recv(_SIZE.size, socket.MSG_WAITALL)
                if not size:
                    return None
                encoded = bytearray(_SIZE.unpack(size)[0])
                self._fill(memoryview(encoded))
                header = pb.BatchHeader.FromString(bytes(encoded))
                if not header.payload_bytes:
                    return header, None
                payload = blocks.take(header.payload_bytes)
                self._fill(payload.data)
            except (OSError, EOFError, struct.error) as error:
                msg = f"the Unix socket ended within a batch: {error}"
                raise UnavailableError(msg) from None
        return header, payload

    def _fill(self, view: memoryview) -> None:
        while len(view):
            received = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            if not received:
                msg = f"{len(view)} bytes are missing"
                raise EOFError(msg)
            view = view[received:]

    def close(self) -> None:
        """Ends the connection, also while another thread receives."""
        _close(self._socket, self._reading)


class UnixSender:
    """The server's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()

    @classmethod
    def connect(cls, offer: pb.UnixSocket) -> UnixSender | None:
        """Returns a connection to a client, None where it is not on this machine.

        Raises:
            ProtocolError: The offer is none of this protocol.
        """
        if sys.platform != "linux" or not offer.name:
            return None
        if len(offer.name) != _TOKEN_BYTES or len(offer.secret) != _TOKEN_BYTES:
            msg = f"a Unix socket's name and secret have {_TOKEN_BYTES} bytes each"
            raise ProtocolError(msg)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
            connection.setblocking(False)  # or it waits, where the backlog is full
            connection.connect(_address(offer.name))
            connection.setblocking(True)
            connection.sendall(offer.secret)
        except OSError:
            connection.close()
            return None
        return cls(connection)

    def send(self, batch: EncodedBatch) -> None:
        """Sends a batch from where its parts lie.

        Raises:
            StorageError: Rows in a mapped file are not there any more.
            UnavailableError: The client has closed the connection.
        """
        header, parts = batch
        encoded = header.SerializeToString()
        pieces: Sequence[bytes | memoryview]
        pieces = [_SIZE.pack(len(encoded)), encoded, *parts]
        with self._sending:
            try:
                while pieces:
                    sent = self._socket.sendmsg(pieces[:_MOST_PIECES])
                    pieces = _after(pieces, sent)
            except OSError as error:
                if error.errno == errno.EFAULT:
                    msg = (
                        "a file of the pool was cut short while it is served: put it "
                        "back as it was, and start the server again"
                    )
                    raise StorageError(msg) from error
                msg = f"the Unix socket broke: {os.strerror(error.errno or 0)}"
                raise UnavailableError(msg) from error

    def close(self) -> None:
        """Ends the connection, also while another thread sends."""
        _close(self._socket, self._sending)


def _after(
    pieces: Sequence[bytes | memoryview], num_bytes: int
) -> Sequence[bytes | memoryview]:
    """Returns what of some pieces comes after a number of bytes."""
    for index, piece in enumerate(pieces):
        if num_bytes < len(piece):
            return [memoryview(piece)[num_bytes:], *pieces[index + 1 :]]
        num_bytes -= len(piece)
    return []


def _close(connection: socket.socket, in_use: threading.Lock) -> None:
    """Closes a socket once the thread that waits at it has let it go."""
    with contextlib.suppress(OSError):  # the other end has closed it
        connection.shutdown(socket.SHUT_RDWR)
    with in_use:
        connection.close()
