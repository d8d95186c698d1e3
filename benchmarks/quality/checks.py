"""What the quick run asserts: the signs, with room for three seeds of noise.

Thresholds are on means over seeds, not on intervals: three seeds have wide ones. Only
signs are asserted that were there, with room, on other seeds too: not that InfoBatch
needs its weights or beats random parts of its size, which did not reproduce.
"""

from __future__ import annotations

import dataclasses

from benchmarks.quality.summary import Results

__all__ = ["Check", "checks"]

POINT = 0.01
TASK = "mixture"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One sign.

    Attributes:
        says: What is asserted.
        value: What was found.
        passed: Whether it is so.
    """

    says: str
    value: str
    passed: bool


def checks(results: Results) -> list[Check]:
    """Returns every sign, and whether it is there."""

    def above(ours: str, theirs: str, least: float, says: str) -> Check:
        change = results.difference(TASK, ours, theirs)
        text = f"{change.text(1 / POINT)} points"
        return Check(says, text, change.mean > least)

    def below(ours: str, theirs: str, most: float, says: str) -> Check:
        change = results.difference(TASK, ours, theirs)
        text = f"{change.text(1 / POINT)} points"
        return Check(says, text, change.mean < most)

    full, kept = (results.mean(TASK, a, "examples") for a in ("full", "infobatch"))
    saved = 1 - kept / full
    change = results.difference(TASK, "infobatch", "full")
    return [
        Check("InfoBatch saves at least 25 %", f"{saved:.1%}", saved >= 0.25),
        Check(
            "InfoBatch is within a point of full training",
            f"{change.text(1 / POINT)} points",
            abs(change.mean) < POINT,
        ),
        *(
            above("rs2", arm, 0.0, f"RS2 is above {arm}, equal steps")
            for arm in ("static_random", "static_k_center", "static_el2n")
        ),
        *(
            check
            for arm, name in (
                ("rho", "RHO-LOSS"),
                ("selective_backprop", "Selective Backprop"),
            )
            for check in (
                above(arm, "uniform", 0.0, f"{name} gains where scoring is free"),
                *(
                    below(
                        f"{arm}{how}",
                        "uniform",
                        0.2 * POINT,
                        f"{name} gains nothing {text}",
                    )
                    for how, text in (
                        ("_charged", "at equal device-seconds"),
                        ("_counted", "at equal passes"),
                    )
                ),
            )
        ),
        *(
            Check(
                f"{name} changes less than a point",
                f"{change.text(1 / POINT)} points",
                abs(change.mean) < POINT,
            )
            for arm, name in (
                ("placebo", "shuffling the scores"),
                ("service_random", "drawing from scored candidates"),
            )
            for change in [results.difference(TASK, arm, "uniform")]
        ),
    ]
