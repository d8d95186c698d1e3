"""Waiting for a cluster that does not come."""

import threading

import pytest

from curator.config import RaySpec
from curator.engine import _ray_connection
from curator.engine._ray_connection import THREAD, RayConnection
from curator.errors import ScoringError

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]

NOWHERE = "127.0.0.1:1"
HANG = 60.0  # seconds that only a mistake takes


def waiting(connection, spec, is_wanted, num_threads):
    """Starts threads that wait; returns them, and what each of them raised."""
    raised = []

    def wait():
        try:
            connection.wait(spec, is_wanted)
        except ScoringError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    return threads, raised


def ended(threads):
    for thread in threads:
        thread.join(HANG)
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture(autouse=True)
def attempts_end():
    """Waits for attempts at hand, which shut Ray down under a test that comes next."""
    yield
    attempts = [each for each in threading.enumerate() if each.name == THREAD]
    assert ended(attempts)


def test_all_who_wait_are_told_what_is_wrong(caplog):
    connection = RayConnection(lambda: None)
    spec = RaySpec(address=NOWHERE, start_seconds=3.0)

    threads, raised = waiting(connection, spec, lambda: True, 8)

    assert ended(threads)
    assert len(raised) == 8
    (told,) = set(raised)
    assert told.startswith(f"no Ray cluster at ray.address = '{NOWHERE}': ")
    warnings = [r for r in caplog.records if r.name.endswith("_ray_connection")]
    # Eight waits one after the other would be eight times the attempts.
    assert len(warnings) == 1


def test_the_cluster_of_the_environment_is_told_too(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", NOWHERE)
    spec = RaySpec(address="auto", start_seconds=0.01)

    message = rf"'auto' \(RAY_ADDRESS: '{NOWHERE}'\): .*refused"
    with pytest.raises(ScoringError, match=message):
        RayConnection(lambda: None).wait(spec, lambda: True)


def test_an_attempt_that_does_not_end_is_not_waited_for_for_ever(monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def connected(_):
        begun.set()
        may_end.wait(HANG)
        return "late"

    monkeypatch.setattr(_ray_connection, "_connected", connected)
    monkeypatch.setattr(_ray_connection, "_ATTEMPT_SECONDS", 0.01)
    spec = RaySpec(address=NOWHERE, start_seconds=0.01)

    with pytest.raises(ScoringError, match=r"no Ray cluster at .*: nothing answers"):
        RayConnection(lambda: None).wait(spec, lambda: True)
    assert begun.is_set()
    may_end.set()


def test_whoever_is_not_wanted_any_more_waits_no_longer():
    connection = RayConnection(lambda: None)
    spec = RaySpec(address=NOWHERE, start_seconds=3600.0)
    is_wanted = True
    threads, raised = waiting(connection, spec, lambda: is_wanted, 3)

    is_wanted = False
    connection.wake()

    assert ended(threads)
    assert raised == []


def test_later_it_is_tried_again(caplog):
    connection = RayConnection(lambda: None)
    spec = RaySpec(address=NOWHERE, start_seconds=0.01)

    for _ in range(2):
        with pytest.raises(ScoringError, match="no Ray cluster at"):
            connection.wait(spec, lambda: True)
