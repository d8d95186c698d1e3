"""What is claimed of whom, and whether the numbers say so.

Nothing here knows a result. A claim names two arms, a measure and an axis (what the two
have in common), and is judged by the paired 95 % interval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal

from benchmarks.quality.lm_claims import PAIRS, lm_targets
from benchmarks.quality.stats import Difference
from benchmarks.quality.summary import Results
from benchmarks.report import Target

__all__ = ["CLAIMS", "Claim", "Verdict", "holds", "judge", "targets"]

MARGIN = 0.003  # within which InfoBatch is called lossless, set before any run
SAVED = 0.30
STATIC = ("static_random", "static_k_center", "static_el2n")

Kind = Literal["better", "worse", "not better", "same"]


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Something that papers, or this project, say.

    Attributes:
        says: The claim, for a reader.
        ours: An arm.
        theirs: The arm that it is compared with.
        axis: What both have equally much of.
        kind: What is to be shown of ours.
        measure: Of what; the headline where it is empty.
        tasks: Of which tasks; all that have both arms by default.
    """

    says: str
    ours: str
    theirs: str
    axis: str
    kind: Kind
    measure: str = ""
    tasks: tuple[str, ...] = ()


STEPS = "equal steps"
SECONDS = "equal device-seconds (train + score + pick)"
PASSES = "equal forward and backward passes"
EPOCHS = "equal epochs"

_SCORED: tuple[tuple[str, str, Kind], ...] = (
    ("rho", "RHO-LOSS", "not better"),
    ("selective_backprop", "Selective Backprop", "not better"),
    ("importance", "importance sampling", "not better"),
    ("joint", "JEST", "better"),
    ("easy_reference", "choosing by the reference alone", "better"),
)
"""Arms that score, and what is claimed of them when that is charged."""

CLAIMS: Final[tuple[Claim, ...]] = (
    Claim("InfoBatch loses nothing", "infobatch", "full", EPOCHS, "same"),
    Claim(
        "InfoBatch loses nothing on the tail",
        "infobatch",
        "full",
        EPOCHS,
        "same",
        "rare",
    ),
    Claim(
        "without rescaling InfoBatch is worse",
        "infobatch_no_rescale",
        "infobatch",
        EPOCHS,
        "worse",
    ),
    Claim(
        "InfoBatch beats random parts of the same size",
        "infobatch",
        "random_equal",
        STEPS,
        "better",
    ),
    Claim(
        "InfoBatch beats whole epochs, fewer of them",
        "infobatch",
        "uniform_equal",
        STEPS,
        "better",
    ),
    Claim("RePB loses nothing", "repb", "full", EPOCHS, "same"),
    Claim("SeTa loses nothing", "seta", "full", EPOCHS, "same"),
    *(
        Claim(f"RS2 beats {arm.replace('_', ' ', 1)}", "rs2", arm, STEPS, "better")
        for arm in STATIC
    ),
    *(
        claim
        for arm, name, when_charged in _SCORED
        for claim in (
            Claim(f"{name} helps, scoring free", arm, "uniform", STEPS, "better"),
            *(
                Claim(
                    f"{name} {'pays' if when_charged == 'better' else 'does not pay'}",
                    f"{arm}_{how}",
                    "uniform",
                    axis,
                    when_charged,
                )
                for how, axis in (("charged", SECONDS), ("counted", PASSES))
            ),
        )
    ),
    Claim(
        "RHO-LOSS does not beat uniform batches with its device-seconds",
        "rho",
        "uniform_rho_cost",
        SECONDS,
        "not better",
    ),
    Claim(
        "JEST beats uniform batches with its device-seconds",
        "joint",
        "uniform_joint_cost",
        SECONDS,
        "better",
    ),
    Claim("a cheap scorer still helps", "rho_cheap", "uniform", STEPS, "better"),
    Claim("a cheap scorer pays", "rho_cheap_charged", "uniform", SECONDS, "better"),
    Claim("a cheap scorer pays", "rho_cheap_counted", "uniform", PASSES, "better"),
    Claim("the highest losses help", "max_loss", "uniform", STEPS, "better"),
    Claim("joint selection beats top-k", "joint", "rho", STEPS, "better"),
    Claim("shuffled scores gain nothing", "placebo", "uniform", STEPS, "not better"),
    Claim(
        "shuffled scores gain nothing", "joint_placebo", "uniform", STEPS, "not better"
    ),
    Claim(
        "drawing from scored candidates gains nothing",
        "service_random",
        "uniform",
        STEPS,
        "not better",
    ),
    *(Claim(*pair) for pair in PAIRS),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A claim on a task.

    Attributes:
        claim: The claim.
        task: The task.
        difference: Ours minus theirs.
        holds: Whether the interval shows it; None where it shows neither it nor the
            opposite.
    """

    claim: Claim
    task: str
    difference: Difference
    holds: bool | None

    @property
    def word(self) -> str:
        """What is said of it."""
        if self.holds is None:
            return "not shown"
        return "holds" if self.holds else "does not hold"


def judge(results: Results) -> list[Verdict]:
    """Returns every claim that there are results for."""
    return [
        Verdict(claim, task, difference, holds(claim.kind, difference))
        for claim in CLAIMS
        for task in results.tasks
        if results.has(task, claim.ours, claim.theirs)
        and task in (claim.tasks or (task,))
        and _has_measure(results, task, claim)
        for difference in [
            results.difference(task, claim.ours, claim.theirs, claim.measure)
        ]
    ]


def _has_measure(results: Results, task: str, claim: Claim) -> bool:
    first = next(iter(results.by[task, claim.ours].values()))
    return not claim.measure or claim.measure in first["metrics"]


def holds(kind: Kind, difference: Difference) -> bool | None:
    """Returns whether an interval shows something, or the opposite, or neither."""
    if kind == "better":
        shown, refuted = difference.above_zero, difference.below_zero
    elif kind == "worse":
        shown, refuted = difference.below_zero, difference.above_zero
    elif kind == "not better":
        # What a placebo is to do is not to help: an interval with zero in it says so.
        shown, refuted = not difference.above_zero, difference.above_zero
    else:
        shown = difference.within(MARGIN)
        refuted = difference.high < -MARGIN or difference.low > MARGIN
    if difference.count < 2 or not (shown or refuted):
        return None
    return shown


def targets(results: Results) -> list[Target]:
    """Returns the issue's targets, from the numbers alone."""
    return [
        target
        for task in results.tasks
        for part in (_infobatch, _rs2, _charged, _cheap, lm_targets)
        for target in part(results, task)
    ]


def _infobatch(results: Results, task: str) -> Iterator[Target]:
    if not results.has(task, "full", "infobatch", "infobatch_no_rescale"):
        return
    full, kept = (results.mean(task, a, "examples") for a in ("full", "infobatch"))
    saved = 1 - kept / full
    yield Target(
        f"{task}: InfoBatch, examples saved",
        round(100 * saved, 1),
        "%",
        f">= {SAVED:.0%}",
        saved >= SAVED,
    )
    change = results.difference(task, "infobatch", "full")
    worst = max(abs(change.low), abs(change.high))
    yield Target(
        f"{task}: InfoBatch minus full {change.text(100)} points, farthest end of the "
        "interval",
        round(100 * worst, 2),
        "points",
        f"<= {100 * MARGIN:g}",
        change.within(MARGIN),
    )
    change = results.difference(task, "infobatch_no_rescale", "infobatch")
    yield Target(
        f"{task}: without rescaling minus with {change.text(100)} points, upper end",
        round(100 * change.high, 2),
        "points",
        "< 0",
        change.below_zero,
    )


def _rs2(results: Results, task: str) -> Iterator[Target]:
    if not results.has(task, "rs2", *STATIC):
        return
    lows = {arm: results.difference(task, "rs2", arm).low for arm in STATIC}
    closest = min(lows, key=lambda arm: lows[arm])
    yield Target(
        f"{task}: RS2 minus the closest static tenth ({closest}), equal steps, "
        "lower end",
        round(100 * lows[closest], 2),
        "points",
        "> 0",
        lows[closest] > 0,
    )
    best = max(STATIC, key=lambda arm: results.mean(task, arm, ""))
    spent = results.mean(task, best, "total")
    needed = results.seconds_to(task, "rs2", results.mean(task, best, ""))
    ratio = 0.0 if needed is None else spent / needed
    yield Target(
        f"{task}: RS2's device-seconds to the final {results.headline(task)} of the "
        f"best static tenth ({best}), selection counted",
        round(ratio, 2),
        "times fewer",
        "> 1",
        ratio > 1,
    )


def _charged(results: Results, task: str) -> Iterator[Target]:
    for arm in ("rho", "selective_backprop"):
        for suffix, axis, wanted in (
            ("", "scoring free", "> 0"),
            ("_charged", "charged in device-seconds", "<= 0"),
            ("_counted", "charged in passes", "<= 0"),
        ):
            if task == "emoji" or not results.has(task, arm + suffix, "uniform"):
                continue
            change = results.difference(task, arm + suffix, "uniform")
            met = change.above_zero if not suffix else not change.above_zero
            yield Target(
                f"{task}: {arm}, {axis}, minus uniform {change.text(100)} points, "
                "lower end",
                round(100 * change.low, 2),
                "points",
                wanted,
                met,
            )


def _cheap(results: Results, task: str) -> Iterator[Target]:
    for suffix, axis in (("_charged", "device-seconds"), ("_counted", "passes")):
        if not results.has(task, f"rho_cheap{suffix}", "uniform"):
            continue
        change = results.difference(task, f"rho_cheap{suffix}", "uniform")
        yield Target(
            f"{task}: RHO-LOSS with a cheap scorer, charged in {axis}, minus uniform "
            f"{change.text(100)} points, lower end",
            round(100 * change.low, 2),
            "points",
            "> 0: it pays",
            change.above_zero,
        )
