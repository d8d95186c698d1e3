"""A service that was restored from an older copy than its trainer's."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
import worlds
from worlds import UNIFORM, served, train

import curator
from curator import SessionSpec
from curator.engine import Registry
from curator.errors import SessionMismatchError
from curator.pools import MemoryPool
from curator.samplers import InfoBatch
from curator.service import Server

PLANNED = dataclasses.replace(UNIFORM, sampler=InfoBatch(), num_epochs=4)


@contextlib.contextmanager
def serving(state: Path, spec: SessionSpec, socket: Path) -> Generator[None]:
    config = worlds.config(state, s=spec, server={"listen": f"unix:{socket}"})
    registry = Registry(config, {"pairs": MemoryPool(worlds.pairs())})
    server = Server(registry)
    try:
        yield
    finally:
        server.stop(grace_seconds=0.0)
        registry.close()


@pytest.mark.parametrize("num_steps", [7, 25], ids=["near", "far"])
@pytest.mark.parametrize("spec", [UNIFORM, PLANNED], ids=["uniform", "planned"])
def test_a_trainer_that_goes_on_is_told_so(
    tmp_path: Path, spec: SessionSpec, num_steps: int
) -> None:
    """At its next report, or at once where it is beyond what the service defines."""
    socket = tmp_path / "socket"
    with (
        serving(tmp_path / "new", spec, socket),
        curator.connect(f"unix:{socket}") as service,
    ):
        train(service.open("s"), 5, losses=True)
    shutil.copytree(tmp_path / "new", tmp_path / "old")

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(serving(tmp_path / "new", spec, socket))
        service = stack.enter_context(curator.connect(f"unix:{socket}"))
        session = service.open("s")
        train(session, num_steps, losses=True)
        first.close()
        stack.enter_context(serving(tmp_path / "old", spec, socket))

        # Near: which of the two depends on how many steps it has defined by now.
        reported = r"this trainer has reported step 5, and session 's' is at step 5"
        beyond = r"but session 's' is at step 5 and only its first \d+ steps are"
        with pytest.raises(SessionMismatchError, match=f"{reported}|{beyond}"):
            train(session, num_steps, losses=True)
        session.load_state_dict({**session.state_dict(), "step": 5})
        assert [batch.step for batch in train(session, 3, losses=True)] == [5, 6, 7]


@pytest.mark.parametrize("kind", ["local", "grpc"])
@pytest.mark.parametrize("spec", [UNIFORM, PLANNED], ids=["uniform", "planned"])
def test_a_state_of_a_step_that_is_but_defined_is_refused(
    tmp_path: Path, kind: str, spec: SessionSpec
) -> None:
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        train(session, 5, losses=True)
        state = session.state_dict()
        assert session.describe().num_defined > 6

        with pytest.raises(
            SessionMismatchError, match=r"next step is 6, and session 's"
        ):
            session.load_state_dict({**state, "step": 6})
        session.load_state_dict(state)


def test_a_rank_that_is_ahead_of_another_is_not_told_so(tmp_path: Path) -> None:
    with served(worlds.config(tmp_path, s=UNIFORM)) as service:
        first, second = (service.open("s", rank=r, world_size=2) for r in range(2))
        train(first, 3)
        train(second, 2)

        again = service.open("s", rank=0, world_size=2)
        again.load_state_dict(first.state_dict())
        assert [batch.step for batch in train(again, 2)] == [3, 4]


def test_who_forgets_a_report_is_not_told_that_the_service_did(tmp_path: Path) -> None:
    with served(worlds.config(tmp_path, s=UNIFORM)) as service:
        session = service.open("s")
        for batch in session.batches():
            if batch.step != 2:
                session.report(batch)
            if batch.step == 6:
                break

        assert session.state_dict()["step"] == 2
