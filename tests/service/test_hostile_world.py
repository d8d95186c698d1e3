"""Slow trainers, networks that stall, disks that cannot be written, damaged ledgers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import worlds
from read_only import read_only
from worlds import UNIFORM, served, train

import curator
from curator.engine import Registry
from curator.errors import StorageError
from curator.pools import MemoryPool
from curator.samplers import InfoBatch

pytestmark = pytest.mark.slow

# Planned from losses, so that a report that is lost or made up would be seen.
PLANNED = dataclasses.replace(
    UNIFORM, sampler=InfoBatch(prune_ratio=0.5), num_steps=60, num_epochs=4
)


def loss(batch):
    return (batch.ids * 7919 % 193 / 40).astype(np.float32) / (1 + batch.step)


def run(session, num_steps=None, **arguments):
    """Trains on some batches, or to the end; returns them."""
    batches = []
    for batch in session.batches(prefetch=1, **arguments):
        session.report(batch, loss=loss(batch))
        batches.append(batch)
        if len(batches) == num_steps:
            break
    return batches


# --- slow trainers ------------------------------------------------------------------


class CountingPool(MemoryPool):
    """Counts how many batches are made of it."""

    def __init__(self, table):
        super().__init__(table)
        self.num_made = 0
        self._counting = threading.Lock()

    def spans(self, ids, columns=None):
        with self._counting:
            self.num_made += len(ids) > 1  # of one: whether rows lie as they are sent
        return super().spans(ids, columns)


def test_a_trainer_that_stops_reading_holds_nobody_up_and_little_memory(tmp_path):
    spec = dataclasses.replace(UNIFORM, num_steps=60)
    pool = CountingPool(worlds.pairs())

    with served(worlds.config(tmp_path, s=spec), pool=pool) as service:
        slow = service.open("s").batches(prefetch=2)
        first = next(slow)
        with curator.connect(service._transport._target) as other:
            fast = train(other.open("s"), 60)
        # What it has taken, its two credits, and one that waits for another.
        assert pool.num_made <= 60 + 1 + 2 + 1
        rest = list(slow)

    worlds.assert_same_batches([first, *rest], fast)


# --- networks that stall ------------------------------------------------------------


class Proxy:
    """Forwards TCP connections, until it stops to without closing them."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = []
        self._is_stalled = False
        self.holds = threading.Event()  # set once something is held back
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._target)
                self._sockets += [ours, theirs]
                threading.Thread(
                    target=self._forward, args=[ours, theirs], daemon=True
                ).start()

    def _forward(self, ours, theirs):
        with contextlib.suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([ours, theirs], [], [])
                if self._is_stalled:
                    self.holds.set()
                    return  # both stay open, and nothing moves any more
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        self._close(ours, theirs)
                        return
                    (theirs if source is ours else ours).sendall(data)

    def stall(self):
        """Stops forwarding what is connected."""
        self._is_stalled = True

    def cut(self):
        """Closes what is connected; forwards what connects from now on."""
        self._is_stalled = False
        self._close(*self._sockets)

    @staticmethod
    def _close(*sockets):
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._close(self._listener, *self._sockets)


def test_a_connection_that_stalls_and_is_cut_is_resumed(tmp_path):
    with served(worlds.config(tmp_path / "whole", s=PLANNED)) as service:
        whole = run(service.open("s"))

    with (
        served(worlds.config(tmp_path / "stalled", s=PLANNED)) as service,
        Proxy(service._transport._target) as proxy,
        curator.connect(proxy.address, retry_seconds=60.0) as client,
    ):
        session = client.open("s")
        batches = run(session, 20)
        proxy.stall()
        rest = []
        trainer = threading.Thread(target=lambda: rest.extend(run(session)))
        trainer.start()
        assert proxy.holds.wait(60)
        assert service.describe("s").next_step == 20
        proxy.cut()
        trainer.join(60)

    worlds.assert_same_batches([*batches, *rest], whole)


# --- disks --------------------------------------------------------------------------


def test_a_read_only_state_directory_is_told_and_goes_on_once_it_is_not(tmp_path):
    config = worlds.config(tmp_path / "state", s=PLANNED)
    with served(config, kind="local") as service:
        batches = run(service.open("s"), 20)
    with (
        read_only(tmp_path / "state"),
        pytest.raises(StorageError, match=r"cannot write .*[Rr]ead-only file system"),
    ):
        Registry(config, {"pairs": MemoryPool(worlds.pairs())})
    with served(config, kind="local") as service:
        batches += run(service.open("s"))

    whole = worlds.config(tmp_path / "whole", s=PLANNED)
    with served(whole, kind="local") as service:
        worlds.assert_same_batches(batches, run(service.open("s")))


def test_a_read_only_session_folder_is_told(tmp_path):
    config = worlds.config(tmp_path / "state", s=PLANNED)
    with served(config, kind="local") as service:
        run(service.open("s"), 20)

    with (
        read_only(tmp_path / "state" / "sessions"),
        served(config, kind="local") as service,
        pytest.raises(StorageError, match=r"ledger"),
    ):
        run(service.open("s"))


# --- damaged ledgers ----------------------------------------------------------------


KILLED = """
import pathlib, sys, test_hostile_world as here
config = here.worlds.config(pathlib.Path(sys.argv[1]), s=here.PLANNED)
with here.served(config, kind="local") as service:
    here.run(service.open("s"), 40)
    print("trained", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The state that a killed server leaves, and the whole stream."""
    folder = tmp_path_factory.mktemp("killed")
    whole = worlds.config(folder / "whole", s=PLANNED)
    with served(whole, kind="local") as service:
        batches = run(service.open("s"))
    path = [str(Path(__file__).parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder / "state")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"trained\n"
        process.kill()
    return folder / "state", batches


def resumed(state, whole):
    """Returns a copy's stream from where its ledger is, and asserts that it is whole's.

    Args:
        state: The copy.
        whole: The whole stream.
    """
    with served(worlds.config(state, s=PLANNED), kind="local") as service:
        session = service.open("s")
        first = session.info.next_step
        worlds.assert_same_batches(run(session), whole[first:])
    return first


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_torn_log_loses_the_last_steps_and_nothing_else(tmp_path, killed, how, seed):
    state, whole = killed
    shutil.copytree(state, tmp_path / "state")
    log = tmp_path / "state" / "sessions" / "s" / "ledger.sqlite-wal"
    data, rng = bytearray(log.read_bytes()), np.random.default_rng(seed)
    page = 4096 + 24
    if how == "cut":
        # From the session's first steps on: before it there is no session.
        del data[int(rng.integers(len(data) // 4, len(data))) :]
    else:
        for position in rng.integers(len(data) - page, len(data), 8):
            data[position] ^= int(rng.integers(1, 256))
    log.write_bytes(data)

    assert 0 <= resumed(tmp_path / "state", whole) <= 40


def test_an_undamaged_copy_is_where_the_server_was(tmp_path, killed):
    state, whole = killed
    shutil.copytree(state, tmp_path / "state")

    assert resumed(tmp_path / "state", whole) == 40


def replayed(config):
    """Returns the whole stream of a session that exists."""
    with served(config, kind="local") as service:
        session = service.open("s")
        session.load_state_dict({**session.state_dict(), "step": 0})
        return run(session)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", ["cut", "zeroed"])
def test_a_damaged_ledger_is_told_and_gives_no_wrong_batch(tmp_path, killed, how, seed):
    config, rng = worlds.config(tmp_path, s=PLANNED), np.random.default_rng(seed)
    with served(config, kind="local") as service:
        run(service.open("s"), 40)
    ledger = tmp_path / "sessions" / "s" / "ledger.sqlite"
    data = bytearray(ledger.read_bytes())
    if how == "cut":
        del data[int(rng.integers(1, len(data))) :]
    else:
        page = 4096 * int(rng.integers(len(data) // 4096))
        data[page : page + 4096] = bytes(4096)
    ledger.write_bytes(data)

    try:
        batches = replayed(config)
    except StorageError:
        return  # told
    # A page that nothing reads: SQLite's map of free ones.
    assert how == "zeroed"
    worlds.assert_same_batches(batches, killed[1])
