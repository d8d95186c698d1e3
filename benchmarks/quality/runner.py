"""Makes the runs that are missing, and says how far it is."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.quality.mixture import mixture
from benchmarks.quality.runs import Job, Store, make

__all__ = ["OUT", "make_all", "show", "warm_up"]

OUT = Path("out/quality")


def make_all(jobs: Iterable[Job], store: Store) -> list[dict[str, Any]]:
    """Makes runs, one line for each; returns all results, old and new."""
    todo = list(jobs)
    missing = [job for job in todo if store.get(job) is None]
    print(f"{len(todo)} runs, {len(todo) - len(missing)} of them finished before")
    started = time.monotonic()
    for number, job in enumerate(missing, 1):
        result = make(job, store)
        spent = time.monotonic() - started
        show(job, result, f"{number}/{len(missing)}  {spent / 60:.1f} min  ")
    return [result for job in todo if (result := store.get(job)) is not None]


def show(job: Job, result: dict[str, Any], before: str = "") -> None:
    """Prints one line about a run."""
    metrics = "  ".join(f"{k} {v:.4f}" for k, v in result["metrics"].items())
    seconds = sum(v for k, v in result["seconds"].items() if k != "serve")
    print(
        f"{before}{job.task.name} {job.arm} seed {job.seed} lr {job.learning_rate:g}: "
        f"{metrics}  {result['steps']} steps  {seconds:.1f} device s  "
        f"{result['wall']:.1f} s",
        flush=True,
    )


def warm_up() -> None:
    """Makes a run of a few steps and forgets it, so that no run pays for imports."""
    task = dataclasses.replace(mixture(), short_steps=3)
    with tempfile.TemporaryDirectory() as folder:
        make(Job(task, "max_loss", 0, 0.01, 0.01), Store(Path(folder)))
