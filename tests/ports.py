"""Ports for servers whose port has to be known before they start."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["free_port"]


def free_port() -> int:
    """Returns a port that no one has, above those that Ray gives its workers.

    And below those that connections get by themselves: one of these could have it
    before the server does, or between two servers.
    """
    start = 20_000 + os.getpid() % 10_000
    for port in range(start, start + 1000):
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("", port))  # what is free on one address may not be on all
            return port
    msg = f"no free port from {start:,} to {start + 999:,}"
    raise RuntimeError(msg)
