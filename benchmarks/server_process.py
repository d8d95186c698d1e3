"""A real server process, and what it holds of the machine. Linux only."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Held", "ServerProcess"]

STOP_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Held:
    """What a process holds.

    Attributes:
        rss_bytes: Resident memory.
        num_fds: Open file descriptors.
        num_threads: Threads.
    """

    rss_bytes: int
    num_fds: int
    num_threads: int


class ServerProcess:
    """``curator serve`` in a process of its own, from when it is made.

    A context manager: leaving it stops the process.

    Attributes:
        address: Where it listens.
        pid: Its process.
        log: Its standard error.
    """

    def __init__(self, config: Path, log: Path, *arguments: str) -> None:
        """Starts the server, and waits until it listens.

        Args:
            config: The configuration file.
            log: Where its standard error goes; appended to.
            arguments: Further arguments of ``curator serve``.

        Raises:
            RuntimeError: It ended instead.
        """
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "curator.cli.__main__"),
                    *("serve", str(config), *arguments),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        first = self._process.stdout.readline()
        if not first:
            self._process.wait()
            msg = f"the server did not start: {log.read_text()[-2000:]}"
            raise RuntimeError(msg)
        self.address = first.split()[-1]

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def held(self) -> Held:
        """Returns what it holds now."""
        folder = Path("/proc") / str(self.pid)
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines()
        )
        return Held(
            rss_bytes=int(status["VmRSS"].split()[0]) << 10,
            num_fds=len(os.listdir(folder / "fd")),
            num_threads=int(status["Threads"]),
        )

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> bool:
        """Asks it to end (SIGTERM), and kills it after a while.

        Returns:
            Whether it ended when it was asked to.
        """
        self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def __enter__(self) -> ServerProcess:
        """Returns the process."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.stop()
