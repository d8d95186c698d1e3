"""Receiving ahead of a trainer: whichever thread does it, the batches are the same."""

import threading

import numpy as np
import pytest

from curator.client import _prefetch
from curator.client._prefetch import BUSY_BATCHES, BUSY_SECONDS, Prefetcher
from curator.client._transport import Delivery
from curator.errors import UnavailableError

BACKGROUND = "curator-prefetch"


class Clock:
    """A clock that stands still but for what the trainer takes."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Stream:
    """Yields deliveries in groups, one for each credit; notes which thread asks."""

    def __init__(self, groups, *, error=None):
        self.groups, self.error = groups, error
        self.credits = threading.Semaphore(max(map(len, groups)))
        self.threads = []

    def __iter__(self):
        for group in self.groups:
            self.threads.append(threading.current_thread().name)
            for _ in group:
                self.credits.acquire()
            yield group
        if self.error is not None:
            raise self.error

    def add_credits(self, num_batches, *, widen=False):
        self.credits.release(num_batches)

    def close(self):
        self.credits.release(1000)


def delivery(step):
    ids = np.arange(3)
    return Delivery(step, 0, ids, None, None, None, False, 0, 9, "mean", None)


def groups(*sizes):
    """Returns groups of consecutive steps."""
    steps = iter(range(1000))
    return [[delivery(next(steps)) for _ in range(size)] for size in sizes]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_prefetch, "time", clock)
    return clock


def received(prefetcher, clock, seconds):
    """Takes every batch, and so long with each; returns the steps."""
    steps = []
    for batch, taken in zip(prefetcher, seconds, strict=True):
        steps.append(batch.step)
        clock.now += taken
    return steps


def test_a_fast_trainer_receives_its_batches_itself(clock):
    stream = Stream(groups(1, 1, 2, 1, 2, 1))
    pauses = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, BUSY_SECONDS / 2, 0.0]

    assert received(Prefetcher(stream, widen=True), clock, pauses) == list(range(8))
    assert BACKGROUND not in stream.threads


@pytest.mark.parametrize("sizes", [[1] * 9, [1, 2, 1, 3, 2], [4, 5], [9]])
def test_a_slow_one_has_them_received_meanwhile(clock, sizes):
    stream = Stream(groups(*sizes))

    steps = received(Prefetcher(stream, widen=True), clock, [2 * BUSY_SECONDS] * 9)

    assert steps == list(range(9))
    if len(sizes) == 9:
        first = [name == BACKGROUND for name in stream.threads].index(True)
        assert first == BUSY_BATCHES
        assert set(stream.threads[first:]) == {BACKGROUND}


@pytest.mark.parametrize("pause", [0.0, 1.0], ids=["fast", "slow"])
def test_an_error_comes_after_the_batches_before_it_and_once(clock, pause):
    error = UnavailableError("gone")
    prefetcher = Prefetcher(Stream(groups(*[1] * 6), error=error), widen=True)
    for step in range(6):
        assert next(prefetcher).step == step
        clock.now += pause

    with pytest.raises(UnavailableError):
        next(prefetcher)
    for _ in range(2):
        assert next(prefetcher, None) is None


def test_closing_lets_the_thread_go(clock):
    stream = Stream(groups(*[1] * 500))
    prefetcher = Prefetcher(stream, widen=False)
    for _ in range(20):
        next(prefetcher)
        clock.now += 1.0

    prefetcher.close()

    assert prefetcher._collector is not None
    assert not prefetcher._collector._thread.is_alive()
