"""A driver that ends while it is asked."""

import os
import queue
import signal
import subprocess
import threading

import pytest

from curator.config import RaySpec
from curator.engine import _ray_process
from curator.engine._hosted_scorer import ScoringPlan
from curator.engine._ray_process import RayProcess
from curator.errors import ScoringError

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]

HANG = 60.0  # seconds that only a mistake takes
# Waits for a cluster that does not come.
PLAN = ScoringPlan(
    session="s",
    ray=RaySpec(address="127.0.0.1:1", start_seconds=3600.0),
    pool=None,
    pool_fingerprint="",
    num_examples=0,
    models={},
    python_path=(),
)


class Watched(RayProcess):
    """Tells of each process that it starts."""

    def __init__(self):
        super().__init__()
        self.pids = queue.SimpleQueue()

    def _start(self):
        driver = super()._start()
        self.pids.put(self._process.pid)
        return driver


def test_a_driver_that_ends_again_and_again_is_an_error_and_not_a_hang():
    process, raised = Watched(), queue.SimpleQueue()

    def ask():
        try:
            process.call("open", PLAN)
        except ScoringError as error:
            raised.put(str(error))

    threading.Thread(target=ask, daemon=True).start()
    for _ in range(3):
        os.kill(process.pids.get(timeout=HANG), signal.SIGKILL)

    assert "ended 3 times during one call" in raised.get(timeout=HANG)
    # The next call is asked of a driver of its own.
    assert process.call("num_ready", "s") == 0
    assert process.num_restarts == 3
    process.close()


def test_a_driver_that_cannot_be_reached_is_ended_and_told(monkeypatch):
    started = []

    def connect(_):
        raise FileNotFoundError(2, "No such file or directory")

    class Popen(subprocess.Popen[str]):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(_ray_process.Manager, "connect", connect)
    monkeypatch.setattr(_ray_process.subprocess, "Popen", Popen)
    process = RayProcess()

    with pytest.raises(ScoringError, match=r"does not answer: .*No such file"):
        process.call("open", PLAN)

    (child,) = started
    assert child.returncode == -signal.SIGKILL
    process.close()
