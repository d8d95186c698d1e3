"""The process that Ray's driver lives in, and the service's end of it.

Ray ends a driver, process and all, whose cluster was started anew ("WrongClusterID"),
and a service must not go down with it. So the driver is a child of the service: when
it ends another one is started, and what was asked of the old one is asked again.
Scoring is a function of the request alone, so asking twice changes nothing.

The two speak through :mod:`multiprocessing.managers` over a local socket, with a key
that only they know.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import subprocess
import sys
import threading
from multiprocessing.managers import BaseManager
from typing import Any, cast

from curator.errors import ScoringError

__all__ = ["Manager", "RayProcess"]

_log = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
# A call that outlives so many drivers is not asked again: where one waits for a cluster
# it says so itself, so these had one and lost it.
_MAX_DEATHS = 3
# How a call ends whose driver is gone.
_GONE = (EOFError, ConnectionError, BrokenPipeError)


class Manager(BaseManager):
    """Serves the driver to the process that started this one."""


class RayProcess:
    """A Ray driver that comes back when it ends.

    Attributes:
        num_restarts: How often it came back.
        is_used: Whether anything was ever asked of it: it starts then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._driver: Any = None
        self._closed = threading.Event()
        self.num_restarts = 0
        self.is_used = False

    def call(self, method: str, *arguments: object) -> Any:
        """Calls a method of :class:`curator.engine._ray_driver.RayDriver`.

        Asks again when the driver ends meanwhile.

        Raises:
            CuratorError: The method raised it.
            ScoringError: The process cannot be started, or ends again and again, or
                this was closed.
        """
        self.is_used = True
        delay = 0.1
        num_deaths = 0
        while True:
            driver = self._ensure()
            try:
                return getattr(driver, method)(*arguments)
            except _GONE as error:
                if self._closed.is_set():
                    msg = "the server is shutting down"
                    raise ScoringError(msg) from error
                self._discard(driver)
                num_deaths += 1
                if num_deaths == _MAX_DEATHS:
                    msg = (
                        f"Ray's driver ended {num_deaths} times during one call: its "
                        "cluster comes and goes. What Ray said of it is in this "
                        "server's log"
                    )
                    raise ScoringError(msg) from error
            self._closed.wait(delay)
            delay = min(2 * delay, 5.0)

    def _ensure(self) -> Any:
        """Returns the driver, starting its process if there is none."""
        with self._lock:
            if self._closed.is_set():
                msg = "the server is shutting down"
                raise ScoringError(msg)
            if self._driver is None:
                self._driver = self._start()
            return self._driver

    def _start(self) -> Any:
        """Starts the process and returns the driver in it.

        Raises:
            ScoringError: It ends before it answers, or does not answer.
        """
        key = secrets.token_bytes(32)
        process = subprocess.Popen(
            [sys.executable, "-m", "curator.engine._ray_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in a terminal is for the service, which then stops this one.
            start_new_session=True,
        )
        try:
            driver = _driver_of(process, key)
        except (OSError, EOFError) as error:
            _end(process)
            msg = f"Ray's driver has been started and does not answer: {error}"
            raise ScoringError(msg) from error
        except BaseException:
            _end(process)
            raise
        self._process = process
        return driver

    def _discard(self, driver: object) -> None:
        """Forgets a driver that is gone, once."""
        with self._lock:
            if driver is not self._driver:
                return
            process, self._process, self._driver = self._process, None, None
            self.num_restarts += 1
        if process is not None:
            _end(process)
            _log.warning(
                "Ray's driver ended with status %s: starting another one",
                process.returncode,
            )

    def close(self) -> None:
        """Ends the driver, and with it all scorers."""
        self._closed.set()
        with self._lock:
            process, self._process, self._driver = self._process, None, None
        if process is None:
            return
        # The end of its standard input tells it to stop.
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _driver_of(process: subprocess.Popen[str], key: bytes) -> Any:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        msg = "Ray's driver has no pipes"
        raise ScoringError(msg)
    with contextlib.suppress(BrokenPipeError):
        stdin.write(f"{key.hex()}\n")
        stdin.flush()
    address = stdout.readline().strip()
    if not address.startswith("address "):
        process.wait()
        msg = address.removeprefix("error ") or (
            f"Ray's driver ended with status {process.returncode} before it started"
        )
        raise ScoringError(msg)
    manager = Manager(address.removeprefix("address "), key)
    manager.connect()
    return cast("Any", manager).driver()


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a process that is no longer asked anything."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


Manager.register("driver")
