"""Chooses each arm's learning rate: the same few trials for every arm.

    python -m benchmarks.quality.tune [TASK ...]

Trials run on seeds that nothing is reported of. A variant of a task (noise, rare
classes) takes the rates of the task itself. The result is committed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.quality import plan
from benchmarks.quality.runner import OUT, show
from benchmarks.quality.runs import Store, make

NOTE = (
    "Best mean headline of each task's grid (`Task.grid`), the same number of trials "
    f"for every arm, on seeds from {plan.TUNING_SEED} on, of which nothing is "
    "reported. Written by `python -m benchmarks.quality.tune`."
)


def main() -> int:
    """Runs the trials that are missing and writes the rates."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    base = [name for name in plan.FULL if "-" not in name]
    parser.add_argument("tasks", nargs="*", default=base, metavar="TASK")
    parser.add_argument("--seeds", type=int, default=2, help="per trial")
    arguments = parser.parse_args()
    rates = plan.learning_rates()
    store = Store(OUT)
    for name in arguments.tasks:
        task, arms = plan.FULL[name]
        scores: dict[tuple[str, float], list[float]] = {}
        for seed in range(plan.TUNING_SEED, plan.TUNING_SEED + arguments.seeds):
            for rate in task.grid:
                for arm in plan.in_order(arms):
                    job = plan.job(task, arm, seed, {}, rate)
                    result = make(job, store)
                    show(job, result)
                    headline = next(iter(result["metrics"].values()))
                    scores.setdefault((arm, rate), []).append(headline)
        best: dict[str, float] = {}
        for arm in plan.in_order(arms):
            means = [float(np.mean(scores[arm, rate])) for rate in task.grid]
            best[arm] = task.grid[int(np.argmax(means))]
        for variant in plan.FULL:
            if variant.split("-")[0] == name:
                rates[variant] = best
        write(plan.RATES, rates)
    return 0


def write(path: Path, rates: dict[str, dict[str, float]]) -> None:
    """Writes the rates and how they were found."""
    path.write_text(json.dumps({"note": NOTE, "rates": rates}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
