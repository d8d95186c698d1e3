"""Scoring on Ray: how much of the scorers' time is scoring, and what faults cost.

    python -m benchmarks.ray_scaling [--json FILE] [--scorers 8,32]

Scorers sleep 50 ms per shard, as a CPU waits for a GPU, so that many of them fit on few
cores; all else is real: actors in processes of their own, rows read from an Arrow file,
features back through the object store. Measured are:

* super-batches of 4,096 candidates, three of them at once, two shards for each scorer:
  the share of the scorers' time that they sleep; beside it, that of actors which do
  nothing else, called by Ray with nothing of ours in between;
* one of four scorers is killed: how long until another one in its place has scored,
  beyond what a process takes to start and load the same model without Ray;
* a snapshot of 100 MB is published every five steps, of 150 ms each: how much longer
  the trainer waits for the batches that follow than for others (median of eight).

Needs the extras ``ray`` and ``torch``, about 8 GB of memory, and some minutes on two
cores, most of which 32 processes spend importing PyTorch.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import ray_alone
from benchmarks.ray_sleepers import build
from benchmarks.report import Report, Target
from curator import Config, ModelSpec, PoolSpec, RaySpec, ServerSpec, SessionSpec
from curator.client import Service
from curator.client._local import LocalTransport
from curator.engine import Registry, ScoringRequest
from curator.models import write_weights
from curator.policies import TopK

ROOT = Path(__file__).resolve().parents[1]
NUM_EXAMPLES, SUPER_BATCH, SHARD_SECONDS = 100_000, 4096, 0.05
NEEDS = frozenset({"learner.embeddings"})
AT_ONCE, RATE_SECONDS = 3, 10.0
TRAINER_SECONDS, STEPS, PUBLISH_EVERY = 0.15, 45, 5
GOALS = {8: 0.95, 32: 0.90}

# What a scorer's process does before it can score, without Ray.
LOAD = """
import sys
from curator.engine._hosted_scorer import HostedScorer
from curator.models import build_scorer
from curator import ModelSpec
build_scorer(ModelSpec(factory="benchmarks.ray_sleepers:build", columns=["x"],
                       args={"seconds": 0.05}, weights=sys.argv[1]))
"""


class Bench:
    """A service in this process, and scorers on a cluster that ends with it."""

    def __init__(
        self, folder: Path, num_scorers: int, megabytes: float = 0.001
    ) -> None:
        weights = folder / f"weights-{megabytes}.safetensors"
        write_weights(weights, build(seconds=0.0, megabytes=megabytes))
        shard = SUPER_BATCH // (2 * num_scorers)
        config = Config(
            server=ServerSpec(
                state_dir=tempfile.mkdtemp(prefix="state-", dir=folder),
                executor="ray",
                python_path=[str(ROOT)],
            ),
            ray=RaySpec(
                address="local", min_scorers=num_scorers, num_cpus=0.0, shard_size=shard
            ),
            pools={"pool": PoolSpec(format="arrow", path=str(folder / "pool.arrow"))},
            models={
                "learner": ModelSpec(
                    factory="benchmarks.ray_sleepers:build",
                    columns=["x"],
                    micro_batch_size=shard,
                    weights=str(weights),
                    args={"seconds": SHARD_SECONDS, "megabytes": megabytes},
                )
            },
            sessions={
                "s": SessionSpec(
                    pool="pool",
                    batch_size=SUPER_BATCH // 8,
                    super_batch_size=SUPER_BATCH,
                    policy=TopK(score="hard_learner", loss="sigmoid"),
                    learner="learner",
                    max_ahead=1,
                    columns=[],
                )
            },
        )
        self.weights = weights
        self.num_scorers = num_scorers
        self.registry = Registry(config)
        self.executor: Any = self.registry.open("s")._executor
        self.wait_for_scorers()

    def wait_for_scorers(self) -> None:
        """Waits until every scorer has loaded its model."""
        while self.num_ready() < self.num_scorers:
            time.sleep(0.02)

    def num_ready(self) -> int:
        """Returns how many scorers can work now."""
        return self.executor._process.call("num_ready", "s")

    def score(self, rng: np.random.Generator) -> Any:
        """Starts on a super-batch."""
        ids = rng.choice(NUM_EXAMPLES, SUPER_BATCH, replace=False)
        return self.executor.submit(ScoringRequest(ids, NEEDS, None))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.close()


def efficiency(folder: Path, num_scorers: int) -> float:
    """Returns the share of the scorers' time in which they sleep."""
    rng = np.random.default_rng(0)
    with Bench(folder, num_scorers) as bench:
        pending = collections.deque(bench.score(rng) for _ in range(AT_ONCE))
        num_shards, started = 0, 0.0
        while not started or time.perf_counter() < started + RATE_SECONDS:
            pending.popleft().result()
            pending.append(bench.score(rng))
            if started:
                num_shards += 2 * num_scorers
            else:  # the first super-batch found idle scorers
                started = time.perf_counter()
        rate = num_shards / (time.perf_counter() - started)
        for future in pending:
            future.result()
    return rate * SHARD_SECONDS / num_scorers


def recovery(folder: Path) -> tuple[float, float]:
    """Returns seconds from a scorer's death to four at work, and of loading alone."""
    rng = np.random.default_rng(0)
    with Bench(folder, 4) as bench:
        pending = collections.deque(bench.score(rng) for _ in range(AT_ONCE))
        victim = _actors()[0]
        os.kill(victim, signal.SIGKILL)
        started, was_lost = time.perf_counter(), False
        while True:
            pending.popleft().result()
            pending.append(bench.score(rng))
            num_ready = bench.num_ready()
            was_lost |= num_ready < 4
            if was_lost and num_ready == 4:
                break
        seconds = time.perf_counter() - started
        for future in pending:
            future.result()
        # On as busy a machine as the replacement had: three scorers, mostly asleep.
        loading = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", LOAD, str(bench.weights)], check=True, cwd=ROOT
            )
            loading.append(time.perf_counter() - started)
    return seconds, statistics.median(loading)


def _actors() -> list[int]:
    """Returns the processes of scorers on this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::ScoringActor"):
                found.append(int(entry.name))
    return found


def stalls(folder: Path) -> tuple[float, list[float]]:
    """Returns what a trainer waits for a batch, usually and after each publication."""
    model = build(seconds=0.0, megabytes=100.0)
    waits: dict[int, float] = {}
    with Bench(folder, 4, megabytes=100.0) as bench:
        session = Service(LocalTransport(bench.registry)).open("s")
        asked = time.perf_counter()
        for batch in session.batches():
            waits[batch.step] = time.perf_counter() - asked
            time.sleep(TRAINER_SECONDS)
            if batch.step % PUBLISH_EVERY == 0 and batch.step:
                session.publish(model)
            session.report(batch)
            asked = time.perf_counter()
            if batch.step == STEPS:
                break
    # With max_ahead = 1 it scores the second step after it, and what follows.
    published = range(PUBLISH_EVERY, STEPS - 2, PUBLISH_EVERY)
    after = [max(waits.pop(step + 1), waits.pop(step + 2)) for step in published]
    return statistics.median(waits.values()), after


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description="Scoring on Ray: efficiency, faults.")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--scorers", default="8,32", help="how many, for efficiency")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.scorers.split(",")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[dict[str, object]] = []
    targets: list[Target] = []

    def add(name: str, value: float, unit: str, goal: str, met: bool) -> None:
        rows.append({"measured": name, "value": round(value, 3), "unit": unit})
        targets.append(Target(name, value, unit, goal, met))

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _write_pool(folder / "pool.arrow")
        for count in counts:
            goal = GOALS.get(count, 0.9)
            share = efficiency(folder, count)
            name = f"efficiency with {count} scorers"
            add(name, share, "", f">= {goal}", share >= goal)
            alone = ray_alone.efficiency(count, SHARD_SECONDS, RATE_SECONDS)
            rows.append(
                {
                    "measured": f"Ray alone, {count} actors that only sleep",
                    "value": round(alone, 3),
                    "unit": "",
                }
            )
        seconds, loading = recovery(folder)
        rows.append(
            {"measured": "loading alone", "value": round(loading, 3), "unit": "s"}
        )
        beyond = seconds - loading
        add("from a death to four, beyond loading", beyond, "s", "< 2", beyond < 2)
        usual, waits = stalls(folder)
        worst = {
            "measured": "longest of those waits",
            "value": round(max(waits), 3),
            "unit": "s",
        }
        rows.append({"measured": "usual wait", "value": round(usual, 3), "unit": "s"})
        stall = statistics.median(waits) - usual
        name = "wait after a 100 MB snapshot, beyond that"
        add(name, stall, "s", f"< a step ({TRAINER_SECONDS})", stall < TRAINER_SECONDS)
        rows.append(worst)
    report = Report(
        title=f"Scoring on Ray, {SHARD_SECONDS * 1000:.0f} ms a shard",
        rows=rows,
        targets=targets,
    )
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def _write_pool(path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((NUM_EXAMPLES, 8), dtype=np.float32)
    table = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(x)})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    main()
