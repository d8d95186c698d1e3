"""What is claimed of UDS, and the figures that say why: lengths, repeats, domains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from benchmarks.quality.lm_recipes import tokens
from benchmarks.quality.summary import Results
from benchmarks.report import Target

__all__ = ["DETAIL", "PAIRS", "detail", "lm_targets"]

Kind = Literal["better", "worse", "not better"]
TOKENS = "equal supervised tokens"
STEPS = "equal steps"
BOTH = "equal steps and supervised tokens"
SECONDS = "equal device-seconds (train + score + pick)"

PAIRS: tuple[tuple[str, str, str, str, Kind], ...] = (
    ("UDS beats random", "uds", "uniform", STEPS, "better"),
    ("UDS beats random", "uds_tokens", "uniform", TOKENS, "better"),
    ("UDS beats random", "uds", "uniform_uds_tokens", TOKENS, "better"),
    ("UDS beats random", "uds_charged", "uniform", SECONDS, "better"),
    ("UDS beats the highest losses", "uds", "max_loss", STEPS, "better"),
    ("UDS beats the highest losses", "uds_tokens", "max_loss_tokens", TOKENS, "better"),
    (
        "UDS beats the highest losses",
        "uds_charged",
        "max_loss_charged",
        SECONDS,
        "better",
    ),
    ("UDS beats random of its lengths", "uds", "uds_lengths", BOTH, "better"),
    (
        "UDS beats random of its lengths",
        "uds_tokens",
        "uds_lengths_tokens",
        TOKENS,
        "better",
    ),
    (
        "UDS beats random of its lengths",
        "uds_charged",
        "uds_lengths",
        SECONDS,
        "better",
    ),
    ("the highest losses help", "max_loss_tokens", "uniform", TOKENS, "better"),
    ("the highest losses help", "max_loss_charged", "uniform", SECONDS, "better"),
    (
        "choosing one after the other is better",
        "uds_greedy_tokens",
        "uds_tokens",
        TOKENS,
        "better",
    ),
    (
        "dividing by the length is better",
        "uds_normalised_tokens",
        "uds_tokens",
        TOKENS,
        "better",
    ),
    (
        "without its diversity UDS is worse",
        "uds_no_diversity_tokens",
        "uds_tokens",
        TOKENS,
        "worse",
    ),
    (
        "drawing from candidates scored by loss does nothing",
        "scored_random",
        "uniform",
        STEPS,
        "not better",
    ),
)
"""Claims: what is said, ours, theirs, the axis and the kind."""

DETAIL = """\
Quality is minus the held-out loss in nats per supervised token, the mean over domains;
a point is a hundredth of that. Equal tokens are as many steps as the run at equal steps
says; what is picked may get longer or shorter in another number of steps, so see the
column (`uds` and `uniform_uds_tokens`, and `uds_lengths`, agree but for rounding).
Every example is padded to one length, so a step costs the same whatever was picked.
`uds_lengths` is random but for the lengths, which are those that `uds` picked with the
same seed. What each arm trained on, and each domain's held-out loss:"""


def lm_targets(results: Results, task: str) -> Iterator[Target]:
    """Yields UDS against each baseline at equal tokens and at equal total cost."""
    for says, ours, theirs, axis, _ in PAIRS:
        if not says.startswith("UDS") or axis not in (TOKENS, SECONDS):
            continue
        if not results.has(task, ours, theirs):
            continue
        change = results.difference(task, ours, theirs)
        yield Target(
            f"{task}: {says}, {axis}: {ours} minus {theirs} {change.text(100)} points, "
            "lower end",
            round(100 * change.low, 2),
            "points",
            "> 0",
            change.above_zero,
        )


def detail(results: Results, task: str) -> list[dict[str, object]]:
    """Returns what each arm picked and each domain's held-out loss, means over seeds.

    Empty for tasks that are no language model's.
    """
    arms = results.arms(task)
    first = next(iter(results.by[task, arms[0]].values()))
    if "log_likelihood" not in first["metrics"]:
        return []
    domains = list(first["metrics"])[2:]
    return [
        {
            "arm": arm,
            "tokens an example": round(results.mean(task, arm, "length"), 1),
            "repeats": round(results.mean(task, arm, "repeat"), 3),
            "wrong": round(results.mean(task, arm, "wrong"), 3),
            "rare domains": round(_picked_rare(results, task, arm), 3),
            "tokens": round(_tokens(results, task, arm)),
            **{
                f"{name} loss": round(-results.mean(task, arm, name), 3)
                for name in domains
            },
        }
        for arm in arms
    ]


def _tokens(results: Results, task: str, arm: str) -> float:
    return float(np.mean([tokens(run) for run in results.by[task, arm].values()]))


def _picked_rare(results: Results, task: str, arm: str) -> float:
    runs = results.by[task, arm].values()
    return float(np.mean([run["diagnostics"]["rare"] for run in runs]))
