"""A cache of decoded data, bounded by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["ByteCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Keeps what was used last, up to a number of bytes; safe to use from threads.

    What one thread is loading, another one waits for instead of loading it too. While
    it is loaded it counts for nothing, so the bound may be exceeded by what the threads
    are at.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._sizes: dict[K, int] = {}
        self._entries: OrderedDict[K, Future[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        keys: Sequence[K],
        load: Callable[[Sequence[K]], Sequence[tuple[V, int]]],
    ) -> list[V]:
        """Returns a value per key.

        Args:
            keys: Distinct.
            load: Returns value and size in bytes of those that are not here; called
                once at most. What it raises is raised by everybody who waits for it.
        """
        mine: list[K] = []
        wanted: list[Future[V]] = []
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._entries.move_to_end(key)
                else:
                    self._entries[key] = Future()
                    mine.append(key)
                wanted.append(self._entries[key])
        if mine:
            self._load(mine, dict(zip(keys, wanted, strict=True)), load)
        # After its own are loaded, so no two threads can wait for each other.
        return [future.result() for future in wanted]

    def _load(
        self,
        keys: list[K],
        futures: dict[K, Future[V]],
        load: Callable[[Sequence[K]], Sequence[tuple[V, int]]],
    ) -> None:
        try:
            loaded = load(keys)
        except BaseException as exc:
            with self._lock:
                for key in keys:
                    self._entries.pop(key, None)
            for key in keys:
                futures[key].set_exception(exc)
            raise
        for key, (value, _) in zip(keys, loaded, strict=True):
            futures[key].set_result(value)
        with self._lock:
            for key, (_, size) in zip(keys, loaded, strict=True):
                self._sizes[key] = size
                self._num_bytes += size
            for key in list(self._entries):
                if self._num_bytes <= self._max_bytes:
                    break
                if key in self._sizes:  # the others are still being loaded
                    self._num_bytes -= self._sizes.pop(key)
                    del self._entries[key]
