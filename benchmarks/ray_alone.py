"""What Ray can do without us: calls that say nothing, to actors that sleep."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, cast

import ray

__all__ = ["efficiency"]

_AT_ONCE = 2  # calls of an actor, as the scorers have them
_ray = cast("Any", ray)


class Sleeper:
    """Sleeps for a while on each call, one call after the other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()

    def sleep(self) -> None:
        """Sleeps once."""
        with self._lock:
            time.sleep(self._seconds)


def efficiency(num_actors: int, call_seconds: float, run_seconds: float) -> float:
    """Returns the share of the actors' time that they sleep, in a cluster of its own.

    Args:
        num_actors: How many actors there are, each with two calls at once.
        call_seconds: How long a call sleeps.
        run_seconds: How long it is measured.
    """
    _ray.init(
        address="local",
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    try:
        # The options of curator.engine's scorers.
        kind = _ray.remote(Sleeper).options(
            num_cpus=0.0, enable_task_events=False, max_concurrency=_AT_ONCE
        )
        actors = [kind.remote(call_seconds) for _ in range(num_actors)]
        _ray.get([actor.sleep.remote() for actor in actors])
        num_calls, seconds = asyncio.run(_run(actors, run_seconds))
    finally:
        _ray.shutdown()
    return num_calls * call_seconds / (num_actors * seconds)


async def _run(actors: list[Any], run_seconds: float) -> tuple[int, float]:
    """Returns how many calls were answered, and in which time."""
    started = time.perf_counter()
    num_calls = 0

    async def call(actor: Any) -> None:
        nonlocal num_calls
        while time.perf_counter() < started + run_seconds:
            await actor.sleep.remote()
            num_calls += 1

    await asyncio.gather(*(call(actor) for actor in actors for _ in range(_AT_ONCE)))
    return num_calls, time.perf_counter() - started
