"""Runs: what identifies one, where its result is kept, and how it is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import curator
from benchmarks.quality.arms import ARMS
from benchmarks.quality.assets import Assets
from benchmarks.quality.recipes import POOL, Recipe, Setting
from benchmarks.quality.task import Columns, Task, as_tensors, build, to_table
from benchmarks.quality.train import Trainer
from curator import Config, ServerSpec
from curator.pools import MemoryPool

__all__ = ["CODE_VERSION", "Job", "Store", "backward_ratio", "make"]

CODE_VERSION = 1  # raised when the same configuration would give another result


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One run to be made.

    Attributes:
        task: What is trained.
        arm: How.
        seed: Of data, weights and batches.
        learning_rate: At its peak.
        reference_rate: Of the references that the arm uses.
        after: The runs whose results it needs.
    """

    task: Task
    arm: str
    seed: int
    learning_rate: float
    reference_rate: float
    after: tuple[Job, ...] = ()

    @property
    def key(self) -> str:
        """Returns a digest of everything that the result depends on."""
        parts = {
            "code": CODE_VERSION,
            "task": self.task.describe(),
            "arm": self.arm,
            "seed": self.seed,
            "rates": [self.learning_rate, self.reference_rate],
            "after": [other.key for other in self.after],
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """Finished runs, one JSON file each.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    def path(self, job: Job) -> Path:
        """Returns where a job's result is, once it is finished."""
        name = f"{job.task.name}-{job.arm}-{job.seed}-{job.key}.json"
        return self.folder / "runs" / name

    def get(self, job: Job) -> dict[str, Any] | None:
        """Returns a finished run, or None."""
        path = self.path(job)
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, job: Job, result: dict[str, Any]) -> None:
        """Keeps a result; it is there whole, or not at all."""
        path = self.path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(part, path)


def make(job: Job, store: Store) -> dict[str, Any]:
    """Returns a run's result; makes it, and those it needs, where it is missing."""
    result = store.get(job)
    if result is None:
        needed = {other.arm: make(other, store) for other in job.after}
        result = _run(job, store, needed.__getitem__)
        store.put(job, result)
    return result


def _run(
    job: Job, store: Store, earlier: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    task, seed = job.task, job.seed
    torch.set_num_threads(1)
    data = task.load(seed)
    assets = Assets(task, seed, data, job.reference_rate, store.folder / "assets")
    ratio = backward_ratio(task, data.train, assets.folder)
    setting = Setting(task, seed, assets, earlier, ratio)
    recipe = ARMS[job.arm].recipe(setting)
    trainer = Trainer(
        task=task,
        model=build(task.model, seed),
        learning_rate=job.learning_rate,
        evaluate=lambda model: task.evaluate(model, data.test),
        use_weights=recipe.use_weights,
        proxy=_proxy(task, seed) if recipe.proxy else None,
        placebo=recipe.placebo,
    )
    with tempfile.TemporaryDirectory(prefix="quality-") as state:
        config = _config(task, recipe, state)
        pool = MemoryPool(to_table(_rows(data.train, recipe.rows)))
        with (
            curator.local(config, pools={POOL: pool}) as service,
            service.open("run", recipe.spec) as session,
        ):
            outcome = trainer.run(session)
    result = dataclasses.asdict(outcome)
    result["seconds"]["reference"] = recipe.reference_seconds
    return {
        "task": task.name,
        "arm": job.arm,
        "seed": seed,
        "learning_rate": job.learning_rate,
        "backward_ratio": ratio,
        **result,
    }


def _proxy(task: Task, seed: int) -> torch.nn.Module:
    assert task.proxy is not None, f"{task.name} has no proxy"
    return build(task.proxy, seed)


def _rows(columns: Columns, rows: Any) -> Columns:
    if rows is None:
        return columns
    return {name: values[rows] for name, values in columns.items()}


def _config(task: Task, recipe: Recipe, state: str) -> Config:
    learner = task.proxy if recipe.proxy and task.proxy is not None else task.model
    models = {"learner": learner, **recipe.models}
    return Config(server=ServerSpec(state_dir=state), models=models)


def backward_ratio(task: Task, columns: Columns, folder: Path) -> float:
    """Returns what a backward pass costs in forward passes; measured once, and kept."""
    model = build(task.model, 0)
    batch = as_tensors(columns, slice(task.batch_size))

    def forward() -> torch.Tensor:
        return task.loss(model(batch), batch).mean()

    path = folder / f"{task.name.partition('-')[0]}-backward-ratio.json"
    if not path.exists():
        passes, both = _quickest(forward, lambda: forward().backward())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(round(both / passes - 1, 2)))
    return float(json.loads(path.read_text()))


def _quickest(*calls: Callable[[], object], rounds: int = 50) -> list[float]:
    """Returns the CPU seconds of each call, the best of several in turn."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            started = time.thread_time()
            call()
            best[i] = min(best[i], time.thread_time() - started)
    return best
