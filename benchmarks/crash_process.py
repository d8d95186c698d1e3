"""Processes that are killed with SIGKILL, and started again.

Each kind of process is a function of this checkout that runs in an interpreter of its
own, with whichever curator is being tested.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

__all__ = ["Client", "Death", "Kill", "Server"]

_ROOT = Path(__file__).resolve().parents[1]


def command(module: str) -> list[str]:
    """Returns a command that calls ``main()`` of a module of this checkout."""
    # At the end of the path: a wheel that is being tested stays before the sources.
    program = (
        f"import sys; sys.path.append({str(_ROOT)!r}); "
        f"from {module} import main; sys.exit(main())"
    )
    return [sys.executable, "-c", program]


def environment(**more: str) -> dict[str, str]:
    """Returns this process's environment, with one thread for numerical code."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@dataclasses.dataclass(frozen=True)
class Kill:
    """When a process is to die.

    Attributes:
        after_events: After how many events of the client, if nothing happens before.
        delay_seconds: How long after that event, while the client goes on.
        failpoint: Where the process is to kill itself, as ``name:when:number``.
    """

    after_events: int
    delay_seconds: float
    failpoint: str | None = None


@dataclasses.dataclass
class Death:
    """A process that died as it was to.

    Attributes:
        kind: ``random``, or the failpoint.
        step: The last step that a client had taken.
        died_at: When, by the monotonic clock.
        back_seconds: From then to the first batch that is surely of the next process;
            None where there was none.
    """

    kind: str
    step: int
    died_at: float
    back_seconds: float | None = None


class Server:
    """``curator serve``, started again on its address whenever it dies.

    Each process it starts dies as the next of the kills says; after the last of them
    it lives. Clients say what they do by :meth:`event`.
    """

    def __init__(
        self,
        config: Path,
        kills: Iterable[Kill] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it, and waits until it listens.

        Args:
            config: Its configuration.
            kills: One for each process.
            variables: Of its environment.
        """
        self.deaths: list[Death] = []
        self.address = "127.0.0.1:0"
        self.error: str | None = None
        self._config = config
        self._kills = iter(kills)
        self._variables = dict(variables or {})
        self._log = config.with_name("server.log")
        self._lock = threading.Lock()
        self._kill: Kill | None = None
        self._events = 0
        self._step = -1
        self._stopping = False
        self._listening = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._listening.wait()
        if self.error is not None:
            raise RuntimeError(self.error)

    # --- what clients do -------------------------------------------------------------

    def event(self, step: int) -> None:
        """Notes that a client has a batch, or an answer; the process may die of it."""
        now = time.monotonic()
        with self._lock:
            self._step = max(self._step, step)
            self._events += 1
            for death in self.deaths[-1:]:
                # One batch may have been received ahead from the one that died.
                if death.back_seconds is None and step > death.step + 1:
                    death.back_seconds = now - death.died_at
            kill, process = self._kill, self._process
            if kill is None or process is None or self._events != kill.after_events:
                return
            timer = threading.Timer(kill.delay_seconds, self._end, [process])
        timer.start()

    def _end(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            # Unless it has died meanwhile, or is to live.
            if process is self._process and not self._stopping:
                process.kill()

    # --- its processes ---------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._stopping:
                    return
                self._kill, self._events = next(self._kills, None), 0
                failpoint = None if self._kill is None else self._kill.failpoint
                process = self._process = self._start(failpoint)
            self._await_address(process)
            code = process.wait()
            if process.stdout is not None:
                process.stdout.close()
            with self._lock:
                if self._stopping:
                    return
                if code != -signal.SIGKILL:
                    end = self._log.read_text()[-2000:]
                    self.error = f"the server ended with status {code}: {end}"
                    self._process = None
                    self._listening.set()
                    return
                kind = "random" if self._events_reached() else str(failpoint)
                name = kind.rpartition(":")[0] or kind
                self.deaths.append(Death(name, self._step, time.monotonic()))

    def _events_reached(self) -> bool:
        return self._kill is None or self._events >= self._kill.after_events

    def _start(self, failpoint: str | None) -> subprocess.Popen[str]:
        variables = dict(self._variables)
        module = "curator.cli.__main__"
        if failpoint is not None:
            variables["CURATOR_CRASH"] = failpoint
        if variables:
            module = "benchmarks.crash_server"
        arguments = ["serve", str(self._config), "--listen", self.address]
        with self._log.open("a") as log:
            return subprocess.Popen(
                [*command(module), *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(**variables),
            )

    def _await_address(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "listening on" in line:
            self.address = line.split()[-1]
            self._listening.set()

    @property
    def pid(self) -> int:
        """The process that serves now."""
        assert self._process is not None
        return self._process.pid

    def kill_all(self) -> None:
        """Kills the process, which is not started again."""
        with self._lock:
            self._stopping = True
            if self._process is not None:
                self._process.kill()
        self._thread.join()
        if self._process is not None:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def __enter__(self) -> Server:
        """Returns the server."""
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()


class Client:
    """A trainer in a process of its own: see ``crash_client``."""

    def __init__(
        self, arguments: Iterable[str], on_event: Callable[[int], None]
    ) -> None:
        """Starts it.

        Args:
            arguments: Of ``crash_client``.
            on_event: Called with the step of each event that it prints.
        """
        self._process = subprocess.Popen(
            [*command("benchmarks.crash_client"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._on_event = on_event

    def run(self, kill: Kill | None) -> bool:
        """Returns whether it came to its end; kills it when it is to die."""
        timer = None
        assert self._process.stdout is not None
        for number, line in enumerate(self._process.stdout, 1):
            self._on_event(int(line))
            if kill is not None and number == kill.after_events:
                timer = threading.Timer(kill.delay_seconds, self.stop)
                timer.start()
        _, errors = self._process.communicate()
        if timer is not None:
            timer.cancel()
        if self._process.returncode not in (0, -signal.SIGKILL):
            msg = f"the client ended with status {self._process.returncode}: {errors}"
            raise RuntimeError(msg)
        return self._process.returncode == 0

    def stop(self) -> None:
        """Kills it, if it still runs."""
        self._process.kill()
