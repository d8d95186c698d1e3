"""What is run: tasks, arms, seeds and learning rates.

To add an arm, write its recipe in ``arms.py`` and name it here; to add a task, write
its file and name it here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.quality.arms import ARMS
from benchmarks.quality.emoji import emoji
from benchmarks.quality.fashion import fashion
from benchmarks.quality.lm import instructions
from benchmarks.quality.mixture import mixture
from benchmarks.quality.runs import Job
from benchmarks.quality.smollm2 import ARMS as SMOLLM2_ARMS
from benchmarks.quality.smollm2 import smollm2
from benchmarks.quality.task import Task

__all__ = [
    "FULL",
    "FULL_SEEDS",
    "QUICK",
    "QUICK_SEEDS",
    "RATES",
    "SMOLLM2",
    "TUNING_SEED",
    "Plan",
    "jobs",
]

TUNING_SEED = 100  # and above: seeds that nothing is reported of
FULL_SEEDS = range(10, 15)  # none that a setting was chosen on
QUICK_SEEDS = range(3)
RATES = Path(__file__).with_name("learning_rates.json")

PRUNED = ("full", "infobatch", "infobatch_no_rescale", "random_equal", "uniform_equal")
TENTH = ("rs2", "static_random", "static_k_center", "static_el2n")
SCORED = (
    "uniform",
    "rho",
    "rho_charged",
    "rho_counted",
    "selective_backprop",
    "selective_backprop_charged",
    "selective_backprop_counted",
    "rho_cheap",
    "rho_cheap_charged",
    "rho_cheap_counted",
    "placebo",
    "service_random",
)
MORE = (
    "repb",
    "seta",
    "importance",
    "importance_charged",
    "importance_counted",
    "max_loss",
    "uniform_rho_cost",
)
PAIRS = (
    "uniform",
    "joint",
    "joint_charged",
    "rho",
    "rho_charged",
    "easy_reference",
    "easy_reference_charged",
    "max_loss",
    "joint_placebo",
    "service_random",
    "uniform_joint_cost",
)
# The smallest that say what wrong labels and rare classes do to each kind of arm.
FEW = (
    "full",
    "infobatch",
    "random_equal",
    "rs2",
    "static_random",
    "uniform",
    "rho",
    "rho_charged",
    "selective_backprop",
    "placebo",
)
LANGUAGE = (
    "uniform",
    "scored_random",
    "uniform_uds_tokens",
    "uds_lengths",
    "uds_lengths_tokens",
    *(
        f"{arm}{at}"
        for at in ("", "_tokens", "_charged")
        for arm in ("max_loss", "uds")
    ),
    *(
        f"uds_{variant}{at}"
        for variant in ("greedy", "normalised", "no_diversity")
        for at in ("", "_tokens")
    ),
)
FEW_LANGUAGE = ("uniform", "max_loss", "uds", "uds_lengths")
ALL = (*PRUNED, *TENTH, *SCORED, *MORE)

Plan: TypeAlias = Mapping[str, tuple[Task, tuple[str, ...]]]
"""Tasks, and the arms of each."""

FULL: Plan = {
    "mixture": (mixture(), ALL),
    "mixture-noise": (mixture(0.1), ALL),
    "fashion": (fashion(), ALL),
    "fashion-noise": (fashion("noise"), FEW),
    "fashion-rare": (fashion("rare"), FEW),
    "emoji": (emoji(), PAIRS),
    "instructions": (instructions(), LANGUAGE),
    "instructions-repeats": (instructions("repeats"), FEW_LANGUAGE),
    "instructions-noise": (instructions("noise"), FEW_LANGUAGE),
}
SMOLLM2: Plan = {"smollm2": (smollm2(), SMOLLM2_ARMS)}
QUICK: Plan = {
    "mixture": (mixture(), (*PRUNED, *TENTH, *SCORED)),
}


def jobs(chosen: Plan, seeds: Sequence[int]) -> Iterator[Job]:
    """Yields runs, seed by seed, each after those that it needs."""
    rates = learning_rates()
    for seed in seeds:
        for task, arms in chosen.values():
            for arm in in_order(arms):
                yield job(task, arm, seed, rates)


def job(
    task: Task,
    arm: str,
    seed: int,
    rates: Mapping[str, Mapping[str, float]],
    rate: float | None = None,
) -> Job:
    """Returns one run and those that it needs, each at its arm's learning rate.

    Args:
        task: What is trained.
        arm: How.
        seed: Of everything.
        rates: By task and arm; the middle of the task's grid where there is none.
        rate: The arm's own, in the place of that.
    """
    of_task, default = rates.get(task.name, {}), middle(task.grid)
    return Job(
        task,
        arm,
        seed,
        of_task.get(arm, default) if rate is None else rate,
        # References are trained about as long as the short uniform arm.
        of_task.get("uniform", default),
        tuple(job(task, other, seed, rates) for other in ARMS[arm].after),
    )


def middle(grid: Sequence[float]) -> float:
    """Returns the middle of a grid."""
    return sorted(grid)[len(grid) // 2]


def in_order(arms: Sequence[str]) -> list[str]:
    """Returns arms, and those that they need, each after what it needs."""
    found: list[str] = []

    def add(name: str) -> None:
        if name not in found:
            for before in ARMS[name].after:
                add(before)
            found.append(name)

    for name in arms:
        add(name)
    return found


def learning_rates() -> dict[str, dict[str, float]]:
    """Returns the tuned rate of each arm of each task, as ``tune.py`` wrote them."""
    if not RATES.exists():
        return {}
    return json.loads(RATES.read_text())["rates"]
