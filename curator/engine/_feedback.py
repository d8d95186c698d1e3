"""What a report must be, and when a step is wholly reported."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float32, Int64

from curator.engine._skips import Skips
from curator.errors import FeedbackError
from curator.ledger import Ledger, Report

__all__ = ["Feedback", "some"]

# Equal losses of so many different examples are no coincidence.
_TELLING = 8


def some(ids: Int64[np.ndarray, " n"]) -> str:
    """Returns the first few ids, for a message."""
    shown = ", ".join(str(i) for i in ids[:4])
    return f"[{shown}{', ...' if len(ids) > 4 else ''}]"


class Feedback:
    """Which steps have been trained on, by whom, and with what losses.

    Not thread-safe: the engine locks.

    Attributes:
        next_step: The first step that is not closed.
    """

    def __init__(self, batch_size: int, ledger: Ledger, skips: Skips) -> None:
        self._batch_size = batch_size
        self._skips = skips
        self._ledger = ledger
        self.next_step = ledger.next_step()

    def add(
        self,
        step: int,
        rows: slice,
        ids: Int64[np.ndarray, " n"],
        losses: Float[np.ndarray, " n"] | None,
        expected: Int64[np.ndarray, " n"],
    ) -> tuple[bool, bool]:
        """Records a report.

        Args:
            step: The step.
            rows: Which rows of its batch the report covers.
            ids: Which the trainer says they were.
            losses: Their un-reduced losses.
            expected: Which they are.

        Returns:
            Whether it was reported already, and whether the step is closed now.

        Raises:
            FeedbackError: The ids are others, or the losses do not fit or look reduced.
        """
        if step in self._skips:
            msg = f"step {step} was skipped: it is not trained on, nor reported"
            raise FeedbackError(msg)
        if not np.array_equal(ids, expected):
            msg = (
                f"the ids are not those of rows {rows.start} to {rows.stop} of step "
                f"{step}: expected {len(expected)} ids {some(expected)}; got "
                f"{len(ids)} ids {some(ids)}"
            )
            raise FeedbackError(msg)
        usable = None if losses is None else _usable(step, expected, losses)
        report = Report(step, rows.start, rows.stop, usable)
        before = self._ledger.reports(step)
        if _covers(before, rows.start, rows.stop):
            return True, step < self.next_step
        next_step = self.next_step
        closes = _covers([*before, report], 0, self._batch_size)
        if closes and step == next_step:
            next_step = self._closed_from(step + 1)
        self._ledger.add_report(report, next_step=next_step)
        self.next_step = next_step
        return False, closes

    def missing_before(self, step: int, rows: slice) -> int | None:
        """Returns the first open step, if it is before another and lacks these rows."""
        first = self.next_step
        if first >= step or _covers(self._ledger.reports(first), rows.start, rows.stop):
            return None
        return first

    def skip(self, start: int, stop: int) -> bool:
        """Closes those steps of a range that are not closed yet.

        What is closed already was trained on, and stays as it is: it may be that a
        trainer went back before a loss spike and passes over what it has seen.

        Returns:
            Whether there were any.
        """
        start = self._skips.after(max(start, self.next_step))
        if start >= stop:
            return False
        next_step = self._closed_from(
            stop if start == self.next_step else self.next_step
        )
        self._skips.add(start, stop, next_step=next_step)
        self.next_step = next_step
        return True

    def missing(self, world_size: int) -> str:
        """Returns, in words, whose reports the first open step lacks."""
        reports = self._ledger.reports(self.next_step)
        size = self._batch_size // world_size
        ranks = [
            str(rank)
            for rank in range(world_size)
            if not _covers(reports, rank * size, (rank + 1) * size)
        ]
        if len(ranks) == 1:
            return f"rank {ranks[0]} of {world_size} has"
        return f"ranks {', '.join(ranks)} of {world_size} have"

    def _closed_from(self, step: int) -> int:
        """Returns the first step from ``step`` on that is not closed."""
        while True:
            after = self._skips.after(step)
            if _covers(self._ledger.reports(after), 0, self._batch_size):
                after += 1
            if after == step:
                return step
            step = after


def _usable(
    step: int, ids: Int64[np.ndarray, " n"], losses: Float[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """Returns losses with NaN in place of those that are not finite."""
    if losses.shape != ids.shape:
        msg = (
            f"step {step}: expected one loss per example, shape ({len(ids)},); got "
            f"shape {losses.shape}. Report un-reduced losses (reduction='none')"
        )
        raise FeedbackError(msg)
    first = float(losses[0])
    # Step 0 may have equal losses: a head that starts from zero gives log(C) to all.
    # So may 0/1 losses, and hinges, at any step: those are whole numbers. So may a few
    # copies of one example, which a rank's slice may be made of.
    is_reduced = len(losses) >= _TELLING and step > 0 and bool((losses == first).all())
    if is_reduced and math.isfinite(first) and not first.is_integer():
        msg = (
            f"step {step}: all {len(losses)} losses are {first:g}; that looks like a "
            "mean that was repeated, which says nothing about single examples. Compute "
            "the loss with reduction='none', or report the step without losses"
        )
        raise FeedbackError(msg)
    with np.errstate(over="ignore"):  # beyond float32 is not finite, either
        usable = losses.astype(np.float32)
    usable[~np.isfinite(usable)] = np.nan
    return usable


def _covers(reports: Iterable[Report], start: int, stop: int) -> bool:
    """Whether reports, together, cover rows ``start`` to ``stop``."""
    for report in sorted(reports, key=lambda r: r.start):
        if report.start > start:
            break
        start = max(start, report.stop)
    return start >= stop
