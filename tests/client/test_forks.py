"""Processes that are forked while a stream is open change nothing for their parent."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle  # noqa: TID251 - that it is refused
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import worlds
from worlds import IDS_ONLY, served

import curator.torch
from curator.errors import ServiceError, SessionError

TESTS = Path(__file__).parents[1]

# Forks a child for each of these, in the middle of its loop; says what became of it.
TRAINER = """
import gc, os, sys
import curator
from curator import wire
from curator.errors import SessionError
from curator.rpc.v1 import curation_pb2 as pb

if sys.argv[2] == "remote":
    wire.UnixListener.offer = pb.UnixSocket()

def leave():
    sys.exit(0)

def delete():
    global batches, session, service, batch
    del batches, session, service, batch
    gc.collect()

children = {
    3: leave,
    5: lambda: (batches.close(), session.close(), service.close()),
    7: delete,
    9: lambda: next(batches),
    11: lambda: session.report(batch),
    13: lambda: session.describe(),
    15: lambda: service.names(),
    17: lambda: next(session.batches()),
}
service = curator.connect(sys.argv[1])
session = service.open("s")
batches = session.batches()
for batch in batches:
    child = children.get(batch.step)
    if child is not None:
        pid = os.fork()
        if not pid:
            try:
                child()
            except SessionError as error:
                sys.exit(42 if "stays in the process that opened" in str(error) else 1)
            sys.exit(0)
        print(batch.step, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    session.report(batch)
print("end", batch.step)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpc", "remote"])
def test_what_is_forked_cannot_use_the_session_nor_harm_it(
    tmp_path: Path, kind: str
) -> None:
    spec = dataclasses.replace(IDS_ONLY, num_steps=60)
    with served(worlds.config(tmp_path, s=spec)) as service:
        done = subprocess.run(
            [sys.executable, "-c", TRAINER, service._transport._target, kind],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=TESTS,
        )

    ended = {3: 0, 5: 0, 7: 0, 9: 42, 11: 42, 13: 42, 15: 42, 17: 42}
    expected = [f"{step} {status}" for step, status in ended.items()]
    assert done.stdout.splitlines() == [*expected, "end 59"], done.stderr


@pytest.mark.parametrize("take", [pickle.dumps, copy.deepcopy])
def test_neither_session_nor_loader_is_taken_elsewhere(
    tmp_path: Path, take: Any
) -> None:
    with served(worlds.config(tmp_path, s=IDS_ONLY), kind="local") as service:
        session = service.open("s")
        for thing in (service, session, curator.torch.IterableDataset(session)):
            with pytest.raises(SessionError, match=r"stays in the process that opened"):
                take(thing)


def test_a_service_that_is_closed_says_so(tmp_path: Path) -> None:
    with served(worlds.config(tmp_path, s=IDS_ONLY)) as service:
        session = service.open("s")
        batch = next(session.batches())
        service.close()
        for use in (
            service.names,
            lambda: service.open("s"),
            lambda: session.report(batch),
            lambda: next(session.batches()),
        ):
            with pytest.raises(ServiceError, match=r"is closed: connect again"):
                use()


@pytest.mark.parametrize("kind", ["grpc", "local"])
def test_a_look_at_the_first_batches_is_told_and_passed_over(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = dataclasses.replace(IDS_ONLY, num_steps=6)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        sampler = curator.torch.BatchSampler(session)
        look = iter(sampler)
        next(look)
        next(look)
        with caplog.at_level(logging.WARNING, "curator"):
            for ids in sampler:
                session.report(ids)
        assert session.state_dict()["step"] == service.describe("s").next_step == 6
        assert service.describe("s").cost["num_skipped"] == 2

    (message,) = caplog.messages
    assert "steps 0 to 1 were fetched and left before anything was reported" in message
