"""``curator serve`` that kills itself with SIGKILL at a named place.

    CURATOR_CRASH=ledger.append:before:3 python crash_server.py serve CONFIG ...

The product has no hooks for this: what writes is wrapped here, from outside, and the
process ends before or after the n-th call of one of them. ``torn`` is in the middle of
a write: half of its bytes are there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Generator
from typing import Any, cast

__all__ = ["FAILPOINTS", "VARIABLE", "main"]

VARIABLE = "CURATOR_CRASH"
# Hours by which time.time() of the process is off, changing sign at every call.
CLOCK = "CURATOR_CLOCK_HOURS"

# What is wrapped, by the places where it can die.
_METHODS = {
    "ledger.append": ("curator.ledger._sqlite", "Ledger", "append"),
    "ledger.report": ("curator.ledger._sqlite", "Ledger", "add_report"),
    "ledger.snapshot": ("curator.ledger._sqlite", "Ledger", "add_snapshot"),
    "ledger.meta": ("curator.ledger._sqlite", "Ledger", "set_meta"),
    "snapshot.receive": ("curator.engine._snapshots", "SnapshotStore", "receive"),
    "snapshot.add": ("curator.engine._snapshots", "SnapshotStore", "add"),
    "feature.put": ("curator.store._features", "FeatureStore", "put"),
}
_CALLS = {"os.fsync": "fsync", "os.replace": "replace", "os.unlink": "unlink"}

FAILPOINTS = (
    *(f"{name}:{when}" for name in _METHODS for when in ("before", "after")),
    *(f"{name}:{when}" for name in _CALLS for when in ("before", "after")),
    "ledger.commit:before",
    "ledger.commit:after",
    "os.pwrite:before",
    "os.pwrite:torn",
    "os.pwrite:after",
)
"""Every ``name:when`` at which the process can be made to die."""


class _Failpoint:
    """Counts the calls of one place, and kills the process at the n-th."""

    def __init__(self, place: str) -> None:
        self._name, self._when, number = place.split(":")
        if f"{self._name}:{self._when}" not in FAILPOINTS:
            msg = f"{VARIABLE}: one of {', '.join(FAILPOINTS)}; got {place!r}"
            raise ValueError(msg)
        self._left = int(number)

    def reaches(self, name: str, when: str) -> bool:
        """Counts a call; says whether it is the one to die at."""
        if (name, when) != (self._name, self._when):
            return False
        self._left -= 1
        return self._left == 0

    def hit(self, name: str, when: str) -> None:
        """Dies, if this is the place and the time."""
        if self.reaches(name, when):
            _die()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that can die before and after it is called."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.hit(name, "before")
            result = function(*args, **kwargs)
            self.hit(name, "after")
            return result

        return wrapped


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(failpoint: _Failpoint) -> None:
    """Wraps everything that writes."""
    import importlib

    for name, (module, class_name, method) in _METHODS.items():
        owner = getattr(importlib.import_module(module), class_name)
        setattr(owner, method, failpoint.wrap(name, getattr(owner, method)))
    for name, call in _CALLS.items():
        setattr(os, call, failpoint.wrap(name, getattr(os, call)))
    _arm_commit(failpoint)
    _arm_pwrite(failpoint)


def _arm_commit(failpoint: _Failpoint) -> None:
    """Dies with a transaction written and not committed, or just committed."""
    from curator.ledger import Ledger

    # No hook, and none of its own: what is between a body and its COMMIT is private.
    owner = cast("Any", Ledger)
    original = owner._transaction

    @contextlib.contextmanager
    def transaction(ledger: Ledger) -> Generator[Any]:
        with original(ledger) as db:
            yield db
            failpoint.hit("ledger.commit", "before")
        failpoint.hit("ledger.commit", "after")

    owner._transaction = transaction


def _arm_pwrite(failpoint: _Failpoint) -> None:
    pwrite = os.pwrite

    def torn(file: int, data: memoryview, offset: int) -> int:
        failpoint.hit("os.pwrite", "before")
        if failpoint.reaches("os.pwrite", "torn"):
            pwrite(file, data[: len(data) // 2], offset)
            _die()
        count = pwrite(file, data, offset)
        failpoint.hit("os.pwrite", "after")
        return count

    os.pwrite = torn


def _jump(hours: float) -> None:
    """Makes the clock of the wall jump to and fro; the monotonic one stays."""
    import itertools
    import time

    right, signs = time.time, itertools.cycle((1, -1))
    time.time = lambda: right() + next(signs) * hours * 3600


def main() -> int:
    """Runs the command of this process's arguments."""
    if hours := os.environ.get(CLOCK):
        _jump(float(hours))
    if place := os.environ.get(VARIABLE):
        _arm(_Failpoint(place))
    from curator.cli.__main__ import main as curator

    return curator(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
