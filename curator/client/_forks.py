"""What becomes of a connection in a process that was forked.

The threads that work for it are not there, a lock may be held for ever by one of them,
and its sockets are the parent's. So in the child nothing is done with it: not even
closed.
"""

from __future__ import annotations

import ctypes
import os
import weakref

from curator.errors import SessionError

__all__ = ["Home", "elsewhere", "outlive_forks"]

_kept: weakref.WeakSet[object] = weakref.WeakSet()


def outlive_forks(thing: object) -> None:
    """Has a thing never be deleted in processes that are forked from here on.

    gRPC ends a call when the object of it is deleted, which there would be written to
    the parent's connection, or wait for a thread.
    """
    _kept.add(thing)


def _keep() -> None:
    for thing in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


class Home:
    """The process in which something was opened."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Checks that this is that process.

        Raises:
            SessionError: It is one that was forked from it.
        """
        if not self.is_here:
            raise elsewhere()


def elsewhere() -> SessionError:
    """Returns the error of who takes a session to another process."""
    return SessionError(
        "a session stays in the process that opened it, and this is another one, such "
        "as a worker of a DataLoader: have workers read the examples whose ids "
        "curator.torch.BatchSampler yields, or use num_workers=0 (the service reads "
        "and prefetches already); a process of its own opens its own session"
    )
