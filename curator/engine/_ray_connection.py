"""The connection to the cluster, which may start after the service."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import ray

from curator.config import RaySpec
from curator.errors import ScoringError

__all__ = ["THREAD", "RayConnection"]

_log = logging.getLogger(__name__)

THREAD = "curator-ray-connection"
"""The name of the thread that connects."""

_RETRY_SECONDS = 2.0
_TELL_SECONDS = 30.0
_ATTEMPT_SECONDS = 60.0

# Ray has hardly any types.
_ray = cast("Any", ray)
# It says at each attempt that its handler of SIGTERM is for the main thread only.
logging.getLogger("ray._private.worker").addFilter(
    lambda record: "SIGTERM handler is not set" not in record.getMessage()
)


class RayConnection:
    """Connects in a thread of its own, for as long as anybody waits for that.

    All who wait share one attempt after the other, and each has its own time.
    """

    def __init__(self, on_connected: Callable[[], None]) -> None:
        """Prepares to connect.

        Args:
            on_connected: Called once, in that thread. For ``"local"`` it must not
                return: Linux ends a cluster with the thread that has started it.
        """
        self._on_connected = on_connected
        self._changed = threading.Condition()
        self._num_waiting = 0
        self._is_trying = False
        self._is_connected = False
        self._failure = ""

    def wait(self, spec: RaySpec, is_wanted: Callable[[], bool]) -> None:
        """Waits until there is a connection, or until it is not wanted any more.

        Args:
            spec: Which cluster, and for how long it is waited for.
            is_wanted: Asked again at every :meth:`wake`.

        Raises:
            ScoringError: There was no cluster for ``spec.start_seconds``.
        """
        deadline = time.monotonic() + spec.start_seconds
        with self._changed:
            self._num_waiting += 1
            try:
                while not self._is_connected and is_wanted():
                    if not self._is_trying:
                        self._is_trying, self._failure = True, ""
                        threading.Thread(
                            target=self._try,
                            args=[spec],
                            name=THREAD,
                            daemon=True,
                        ).start()
                    left = deadline - time.monotonic()
                    if left <= 0 and self._failure:
                        raise ScoringError(self._failure)
                    # An attempt that has begun says what is wrong, so it may end.
                    # Ray has some that do not.
                    if left <= -_ATTEMPT_SECONDS:
                        raise ScoringError(_failure(spec, "nothing answers"))
                    self._changed.wait(left if left > 0 else left + _ATTEMPT_SECONDS)
            finally:
                self._num_waiting -= 1
                self._changed.notify_all()

    def wake(self) -> None:
        """Has everybody who waits see whether that is still wanted."""
        with self._changed:
            self._changed.notify_all()

    def _try(self, spec: RaySpec) -> None:
        told_at = -_TELL_SECONDS
        while True:
            failure = _connected(spec)
            with self._changed:
                self._is_connected, self._failure = not failure, failure
                self._changed.notify_all()
                if failure:
                    if time.monotonic() - told_at >= _TELL_SECONDS:
                        told_at = time.monotonic()
                        _log.warning("%s", failure)
                    self._changed.wait_for(
                        lambda: not self._num_waiting, _RETRY_SECONDS
                    )
                self._is_trying = bool(failure and self._num_waiting)
                if not self._is_trying:
                    break
        if not failure:
            self._on_connected()


def _connected(spec: RaySpec) -> str:
    """Tries to connect; returns what went wrong, nothing where nothing did."""
    try:
        if spec.address == "local":
            own: dict[str, object] = {"include_dashboard": False}
        else:
            own = {}
            address = spec.address
            if address == "auto":
                address = os.environ.get("RAY_ADDRESS", address)
            host, _, port = address.rpartition(":")
            if host and port.isdigit():
                # Ray itself takes minutes to say that nobody is there.
                socket.create_connection((host, int(port)), _RETRY_SECONDS).close()
        _ray.init(
            address=spec.address, namespace="curator", configure_logging=False, **own
        )
    except Exception as error:
        _ray.shutdown()
        return _failure(spec, " ".join(str(error).split())[:300])
    return ""


def _failure(spec: RaySpec, why: str) -> str:
    address = repr(spec.address)
    if spec.address == "auto" and "RAY_ADDRESS" in os.environ:
        address += f" (RAY_ADDRESS: {os.environ['RAY_ADDRESS']!r})"
    return (
        f"no Ray cluster at ray.address = {address}: {why}. Start one on this machine "
        "with `ray start --head`, or join this machine to one with "
        "`ray start --address=HOST:PORT`"
    )
