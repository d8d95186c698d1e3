"""From results to figures: one row per task and arm, and paired differences."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.recipes import device_seconds
from benchmarks.quality.stats import Difference, paired
from benchmarks.report import Report

__all__ = ["TITLE", "Results", "headline", "read", "write"]

TITLE = "one row per task and arm, means over seeds; seconds are CPU seconds"

Result = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """Finished runs by task, arm and seed."""

    by: Mapping[tuple[str, str], Mapping[int, Result]]

    @classmethod
    def of(cls, results: Iterable[Result]) -> Results:
        """Returns results in order."""
        by: dict[tuple[str, str], dict[int, Result]] = collections.defaultdict(dict)
        for result in results:
            by[result["task"], result["arm"]][result["seed"]] = result
        return cls(dict(by))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(dict.fromkeys(task for task, _ in self.by))

    def seeds(self, task: str) -> list[int]:
        """Seeds that a task has runs of."""
        return sorted(
            {seed for (name, _), by in self.by.items() for seed in by if name == task}
        )

    def arms(self, task: str) -> list[str]:
        """Names of a task's arms."""
        return [arm for name, arm in self.by if name == task]

    def has(self, task: str, *arms: str) -> bool:
        """Whether there are results of all of some arms."""
        return all((task, arm) in self.by for arm in arms)

    def values(self, task: str, arm: str, measure: str) -> list[float]:
        """Returns a measure of every seed.

        Args:
            task: The task.
            arm: The arm.
            measure: A metric of the task, ``steps``, ``examples``, ``wall``, ``stall``,
                ``device`` (train + score + pick), ``total`` (and the reference), or a
                purpose of ``seconds``.
        """
        seeds = self.by[task, arm]
        return [measured(seeds[seed], measure) for seed in sorted(seeds)]

    def mean(self, task: str, arm: str, measure: str) -> float:
        """Returns the mean over seeds."""
        return float(np.mean(self.values(task, arm, measure)))

    def difference(
        self, task: str, ours: str, theirs: str, measure: str = ""
    ) -> Difference:
        """Returns ours minus theirs, over the seeds that both have."""
        a, b = self.by[task, ours], self.by[task, theirs]
        seeds = sorted(set(a) & set(b))
        return paired(
            [measured(a[seed], measure) for seed in seeds],
            [measured(b[seed], measure) for seed in seeds],
        )

    def headline(self, task: str) -> str:
        """Returns the name of a task's first metric."""
        arm = self.arms(task)[0]
        return headline(next(iter(self.by[task, arm].values())))

    def rows(self) -> list[dict[str, object]]:
        """Returns one row per task and arm, means over seeds."""
        rows: list[dict[str, object]] = []
        for task, arm in self.by:
            seeds = self.by[task, arm]
            first = next(iter(seeds.values()))
            metrics = list(first["metrics"])
            scores = np.array(self.values(task, arm, metrics[0]))
            rows.append(
                {
                    "task": task,
                    "arm": arm,
                    "seeds": len(seeds),
                    "metric": metrics[0],
                    "mean": round(float(scores.mean()), 4),
                    "sd": round(float(scores.std(ddof=1)), 4) if len(seeds) > 1 else 0,
                    "tail": metrics[1],
                    "tail mean": round(self.mean(task, arm, metrics[1]), 4),
                    "steps": round(self.mean(task, arm, "steps")),
                    "examples": round(self.mean(task, arm, "examples")),
                    **{
                        f"{name} s": round(self.mean(task, arm, name), 2)
                        for name in ("train", "score", "pick", "reference", "serve")
                    },
                    "wall s": round(self.mean(task, arm, "wall"), 1),
                    "stall s": round(self.mean(task, arm, "stall"), 1),
                    "lr": first["learning_rate"],
                }
            )
        return rows

    def seconds_to(self, task: str, arm: str, level: float) -> float | None:
        """Returns the mean device-seconds until a level was reached, all cost counted.

        What was spent before the run counts. None where a seed never reached it.
        """
        found: list[float] = []
        for result in self.by[task, arm].values():
            name = headline(result)
            at = next((p for p in result["curve"] if p[name] >= level), None)
            if at is None:
                return None
            found.append(at["device"] + result["seconds"]["reference"])
        return float(np.mean(found))


def write(path: Path, report: Report, results: Results) -> None:
    """Writes a report, and beside it every run, as far as figures are made of it."""
    report.write(path)
    written = json.loads(path.read_text())
    written["runs"] = [_short(r) for by in results.by.values() for r in by.values()]
    lines = ",\n  ".join(json.dumps(run) for run in written.pop("runs"))
    head = json.dumps(written, indent=1)[:-2]
    path.write_text(f'{head},\n "runs": [\n  {lines}\n ]\n}}\n')


def read(path: Path) -> tuple[dict[str, Any], Results]:
    """Returns what :func:`write` wrote: the report, and the runs."""
    written = json.loads(path.read_text())
    return written, Results.of(written.pop("runs"))


def _short(result: Result) -> dict[str, Any]:
    """Returns a run without what nothing is made of, to five digits."""
    kept = {name: value for name, value in result.items() if name != "cost"}
    names = ("num_learner_scored", "num_reference_scored", "num_late")
    kept["cost"] = {n: v for n, v in result["cost"].items() if n in names}
    rounded: dict[str, Any] = json.loads(
        json.dumps(kept), parse_float=lambda text: float(f"{float(text):.5g}")
    )
    return rounded


def headline(result: Result) -> str:
    """Returns the name of a run's first metric."""
    return next(iter(result["metrics"]))


def measured(result: Result, measure: str) -> float:
    """Returns one figure of a run; its headline without a name."""
    if measure == "device":
        return device_seconds(result)
    if measure == "total":
        return device_seconds(result) + result["seconds"]["reference"]
    for part in (result["metrics"], result["seconds"], result["diagnostics"], result):
        if (measure or headline(result)) in part:
            return float(part[measure or headline(result)])
    msg = f"no {measure!r} in a run of {result['task']} {result['arm']}"
    raise KeyError(msg)
