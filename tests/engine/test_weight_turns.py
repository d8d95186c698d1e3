from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from curator.engine._weight_turns import WeightTurns


class Model:
    """What has one set of weights at a time, and knows who is scoring with it."""

    def __init__(self) -> None:
        self.weights, self.users, self.num_loads = 0, set[int](), 0
        self.turns = WeightTurns()

    def load(self, weights: int) -> None:
        assert not self.users
        self.num_loads += 1
        self.weights = weights

    def score(self, weights: int, user: int = 0) -> None:
        self.turns.begin(lambda: self.weights == weights, lambda: self.load(weights))
        try:
            self.users.add(user)
            for _ in range(20):  # long enough for others to come in between
                assert self.weights == weights
            self.users.remove(user)
        finally:
            self.turns.end()


def test_threads_with_the_same_weights_score_together() -> None:
    model, together = Model(), threading.Barrier(3)

    def score() -> None:
        model.turns.begin(lambda: model.weights == 1, lambda: model.load(1))
        together.wait(30)
        model.turns.end()

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(score) for _ in range(3)]:
            done.result()

    assert model.num_loads == 1


def test_weights_stay_while_anybody_scores_with_them() -> None:
    model, num_threads = Model(), 8

    def score(user: int) -> None:
        for weights in np.random.default_rng(user).integers(3, size=200):
            model.score(int(weights), user)

    with ThreadPoolExecutor(num_threads) as threads:
        for done in [threads.submit(score, user) for user in range(num_threads)]:
            done.result()

    assert model.num_loads > 1
    assert not model.users


def test_weights_that_cannot_be_loaded_keep_nobody_else_waiting() -> None:
    model = Model()

    def broken() -> None:
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        model.turns.begin(lambda: False, broken)
    model.score(4)

    assert model.weights == 4


def test_threads_that_wait_get_their_turn_one_kind_of_weights_after_the_other() -> None:
    model, held, num_waiting = Model(), threading.Event(), 6
    model.turns.begin(lambda: model.weights == 9, lambda: model.load(9))
    waiting = threading.Semaphore(0)

    def score(weights: int) -> None:
        def holds() -> bool:
            if not held.is_set():
                waiting.release()
            return model.weights == weights

        model.turns.begin(holds, lambda: model.load(weights))
        model.turns.end()

    with ThreadPoolExecutor(num_waiting) as threads:
        done = [threads.submit(score, 1 + n % 2) for n in range(num_waiting)]
        for _ in range(num_waiting):
            assert waiting.acquire(timeout=30)
        held.set()
        model.turns.end()
        for future in done:
            future.result(30)

    assert model.num_loads >= 3
