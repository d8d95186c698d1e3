"""What a report must be, and when a step is wholly reported."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int64

from curator.errors import FeedbackError
from curator.ledger import Report

__all__ = ["check_losses", "covers", "some"]


def some(ids: Int64[np.ndarray, " n"]) -> str:
    """Returns the first few ids, for a message."""
    shown = ", ".join(str(i) for i in ids[:4])
    return f"[{shown}{', ...' if len(ids) > 4 else ''}]"


def check_losses(
    step: int, ids: Int64[np.ndarray, " n"], losses: Float[np.ndarray, " n"]
) -> None:
    if losses.shape != ids.shape:
        msg = (
            f"step {step}: expected one loss per example, shape ({len(ids)},); got "
            f"shape {losses.shape}. Report un-reduced losses (reduction='none')"
        )
        raise FeedbackError(msg)
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        msg = (
            f"step {step}: {len(bad)} of {len(losses)} losses are not finite (examples "
            f"{some(ids[bad])}); the step stays open. Report it without losses to "
            "close it all the same"
        )
        raise FeedbackError(msg)


def covers(reports: Iterable[Report], start: int, stop: int) -> bool:
    """Whether reports, together, cover rows ``start`` to ``stop``."""
    for report in sorted(reports, key=lambda r: r.start):
        if report.start > start:
            break
        start = max(start, report.stop)
    return start >= stop
