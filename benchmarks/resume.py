"""How long a session of a million steps takes to go on, and what its ledger costs.

    python -m benchmarks.resume [--steps N] [--json FILE]

A session on a virtual pool of a billion examples is given a ledger of so many steps:
the batches that the engine would have defined, all of them reported, written in large
blocks. Then a server process starts and a client asks for the next batch; and then,
several times, the process is killed (SIGKILL) while it streams and takes reports, and
started again. Both are done again with a ledger that also has one snapshot record per
step, as ``publish_every = 1`` leaves them, and one in-process opening is timed by
itself. Last, what the ledger takes for each step of 4,096 examples: one sync for the
blocks in which steps that wait for nobody are defined, one for each step that does, and
one for each report. Writes about 1.5 GB. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

import curator
from benchmarks.report import Report, Target
from benchmarks.server_process import ServerProcess
from curator.engine._drafting import draft
from curator.engine._steps import READY_STEPS
from curator.errors import UnavailableError
from curator.ledger import Ledger, StepRecord
from curator.ledger import Report as StepReport
from curator.ledger._rows import report_to_row
from curator.samplers import Run
from curator.types import SuperBatch

NUM_EXAMPLES, BATCH_SIZE = 10**9, 16
LARGE_BATCH = 4096
NUM_KILLS = 5
SESSION = "long"
_SPEC = {"pool": "ids", "batch_size": BATCH_SIZE, "seed": 3}
_CONFIG = f"""
[server]
listen = "127.0.0.1:0"
state_dir = "state"
[pools.ids]
format = "virtual"
num_examples = {NUM_EXAMPLES}
[sessions.{SESSION}]
pool = "ids"
batch_size = {BATCH_SIZE}
seed = 3
"""


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--steps", type=int, default=10**6, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as name:
        folder, num_steps = Path(name), arguments.steps
        (folder / "server.toml").write_text(_CONFIG)
        started = time.perf_counter()
        path = make_ledger(folder, num_steps)
        size = path.stat().st_size / 1e6
        print(f"{num_steps:,} steps, {size:,.0f} MB: {_since(started):.0f} s")
        for snapshots in (0, num_steps):
            if snapshots:
                add_snapshots(path, snapshots)
            rows_, targets_ = resume(folder, num_steps, snapshots)
            rows += rows_
            targets += targets_
        for name_, milliseconds in overhead(folder).items():
            ordered = sorted(milliseconds)
            rows.append(_row(name_, milliseconds, "ms"))
            if name_.startswith("define and report"):
                median = statistics.median(ordered)
                what = f"ledger per step, {name_}"
                targets.append(Target(what, median, "ms", "< 1", median < 1))
    title = f"resuming at step {arguments.steps:,} of {NUM_EXAMPLES:,} examples"
    report = Report(title=title, rows=rows, targets=targets)
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def make_ledger(folder: Path, num_steps: int) -> Path:
    """Writes the ledger of a session that has trained on so many steps."""
    table = {
        "server": {"state_dir": str(folder / "state")},
        "pools": {"ids": {"format": "virtual", "num_examples": NUM_EXAMPLES}},
        "sessions": {SESSION: _SPEC},
    }
    with curator.local(table) as service:  # writes what identifies the session
        session = service.open(SESSION)
        first = [batch.ids for batch, _ in zip(session.batches(), range(3))]  # noqa: B905
    path = folder / "state" / "sessions" / SESSION / "ledger.sqlite"
    ledger = Ledger(path)
    start = ledger.num_defined()
    for step, ids in enumerate(first):  # what is written below is what it defines
        record = next(records(step, step + 1, BATCH_SIZE))
        np.testing.assert_array_equal(ids, record.ids)
    for block in range(start, num_steps, 10_000):
        ledger.append(*records(block, min(block + 10_000, num_steps), BATCH_SIZE))
    ledger.close()
    losses = np.linspace(0, 1, BATCH_SIZE).astype(np.float32)
    with sqlite3.connect(path) as db:
        db.executemany(
            "INSERT INTO reports VALUES (?, ?, ?, ?, ?)",
            (
                report_to_row(StepReport(step, 0, BATCH_SIZE, losses))
                for step in range(num_steps)
            ),
        )
        db.execute(
            "INSERT OR REPLACE INTO meta VALUES ('next_step', ?)", (str(num_steps),)
        )
    db.close()
    return path


def records(start: int, stop: int, batch_size: int) -> Iterator[StepRecord]:
    """Yields the records that the engine defines, of steps of the first epoch."""
    spec = curator.SessionSpec(pool="ids", batch_size=batch_size, seed=3)
    run = Run(
        num_examples=NUM_EXAMPLES,
        super_batch_size=batch_size,
        seed=3,
        num_epochs=None,
        columns={},
    )
    plan = spec.sampler.start(run).plan(0)
    for block in range(start, stop, 1000):
        end = min(block + 1000, stop)
        ids, _ = plan.take(block * batch_size, end * batch_size)
        for index, step in enumerate(range(block, end)):
            own = ids[index * batch_size : (index + 1) * batch_size]
            yield draft(spec, SuperBatch(step, 0, own, None), {})


def add_snapshots(path: Path, num_steps: int) -> None:
    """Writes one record of a snapshot per step."""
    with sqlite3.connect(path) as db:
        db.executemany(
            "INSERT INTO snapshots VALUES (?, ?, ?)",
            ((step + 1, step, f"{step:032x}") for step in range(num_steps)),
        )
    db.close()


def resume(
    folder: Path, num_steps: int, snapshots: int
) -> tuple[list[dict[str, object]], list[Target]]:
    """Measures the first batch of fresh processes, started and killed in turn."""
    connected: list[float] = []
    started: list[float] = []
    listening: list[float] = []
    config, log = folder / "server.toml", folder / "server.log"
    next_step = 0
    for number in range(NUM_KILLS + 1):
        began = time.perf_counter()
        with ServerProcess(config, log) as server:
            listening.append(_since(began))
            with curator.connect(server.address, retry_seconds=0.1) as service:
                connected_at = time.perf_counter()
                session = service.open(SESSION)
                batches = session.batches()
                batch = next(batches)
                connected.append(_since(connected_at))
                started.append(_since(began))
                _check(batch, max(num_steps, next_step) if number else None)
                if number < NUM_KILLS:
                    next_step = _train_until_killed(session, batch, batches, server)
    what = f"{snapshots:,} snapshot records"
    name = f"({what})"
    rows = [
        _row(f"start to listening {name}", listening, "s"),
        _row(f"connect and open to first batch {name}", connected, "s"),
        _row(f"start to first batch {name}", started, "s"),
    ]
    resumed, recovered = connected[0], max(started[1:])
    return rows, [
        Target(f"resume, connect to batch {name}", resumed, "s", "< 1", resumed < 1),
        Target(
            f"recovery after SIGKILL, slowest {name}",
            recovered,
            "s",
            "< 2",
            recovered < 2,
        ),
    ]


def _check(batch: curator.Batch, least: int | None) -> None:
    """Checks that a batch is the one that its step is defined to have."""
    record = next(records(batch.step, batch.step + 1, BATCH_SIZE))
    np.testing.assert_array_equal(batch.ids, record.ids)
    assert least is None or batch.step >= least, (batch.step, least)


def _train_until_killed(
    session: curator.Session,
    batch: curator.Batch,
    batches: Iterator[curator.Batch],
    server: ServerProcess,
) -> int:
    """Trains for a while, kills the server; returns the first step not reported."""
    timer = threading.Timer(0.5, server.kill)
    timer.start()
    step = batch.step
    try:
        while True:
            step = batch.step
            session.report(batch, loss=np.linspace(0, 1, BATCH_SIZE))
            batch = next(batches)
    except UnavailableError:
        timer.join()
        return step


def overhead(folder: Path) -> dict[str, list[float]]:
    """Measures writes of large steps; milliseconds per step, waiting for the disk."""
    losses = np.random.default_rng(0).random(LARGE_BATCH).astype(np.float32)
    made = list(records(0, 400, LARGE_BATCH))
    ledger = Ledger(folder / "overhead.sqlite")
    result: dict[str, list[float]] = {}

    def note(name: str, action: Callable[[], None], steps: int) -> tuple[float, float]:
        cpu = time.process_time()
        began = time.perf_counter()
        action()
        wall_ms = _since(began) * 1e3 / steps
        cpu_ms = (time.process_time() - cpu) * 1e3 / steps
        result.setdefault(name, []).append(wall_ms)
        result.setdefault(f"{name}, processor", []).append(cpu_ms)
        return wall_ms, cpu_ms

    def both(name: str, block: list[StepRecord]) -> None:
        size = len(block)
        appended = note(f"define, {name}", lambda: ledger.append(*block), size)
        for record in block:
            report = StepReport(record.step, 0, LARGE_BATCH, losses)
            reported = note(
                f"report, {name}",
                lambda r=report: ledger.add_report(r, next_step=r.step + 1),
                1,
            )
            key = f"define and report, {name}"
            result.setdefault(key, []).append(appended[0] + reported[0])
            cpu = appended[1] + reported[1]
            result.setdefault(f"{key}, processor", []).append(cpu)

    for start in range(0, 200, READY_STEPS):
        both(f"in blocks of {READY_STEPS}", made[start : start + READY_STEPS])
    for start in range(200, 400):
        both("one at a time", made[start : start + 1])
    ledger.close()
    path = folder / "sync"
    probe = path.open("wb")
    for _ in range(100):
        note("a write of 4 KiB and its sync", lambda: _sync(probe), 1)
    probe.close()
    return dict(sorted(result.items()))


def _sync(file: IO[bytes]) -> None:
    file.write(bytes(4096))
    file.flush()
    os.fdatasync(file.fileno())


def _row(name: str, values: list[float], unit: str) -> dict[str, object]:
    ordered = sorted(values)
    return {
        "what": name,
        "first": values[0],
        "median": statistics.median(ordered),
        "p90": ordered[int(0.9 * (len(ordered) - 1))],
        "slowest": ordered[-1],
        "unit": unit,
        "runs": len(values),
    }


def _since(moment: float) -> float:
    return time.perf_counter() - moment


if __name__ == "__main__":
    main()
