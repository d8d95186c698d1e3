"""Who waits for steps to be defined hears of it."""

import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest

from curator.engine._steps import DefinedSteps
from curator.ledger import Ledger, StepRecord


@pytest.fixture
def ledger(tmp_path):
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        yield ledger


def record(step):
    return StepRecord(step, 0, np.arange(4), np.ones(4, np.float32))


def test_whoever_waits_for_the_number_of_steps_wakes_when_one_is_added(ledger):
    condition = threading.Condition()
    steps = DefinedSteps("s", ledger, condition)
    waiting = threading.Event()

    def is_there():
        waiting.set()
        return steps.num_defined == 1

    def wait():
        with condition:
            condition.wait_for(is_there)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    waiting.wait()
    with condition:  # only once it waits can this thread have the lock
        pass
    steps.add(record(0))
    thread.join(timeout=60)

    assert not thread.is_alive()


def test_a_step_asked_for_and_given_up_many_times_keeps_nothing(ledger):
    steps = DefinedSteps("s", ledger, threading.Condition())

    def give_up():
        future = steps.future(0)
        future.cancel()
        return weakref.ref(future)

    given_up = [give_up() for _ in range(100)]
    kept = steps.future(0)
    gc.collect()

    assert not any(future() for future in given_up)
    steps.add(record(0))
    assert kept.result(timeout=60).step == 0
