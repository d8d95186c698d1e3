"""Steps that the trainer has decided not to train on."""

from __future__ import annotations

import bisect

from curator.ledger import Ledger

__all__ = ["Skips"]


class Skips:
    """The ranges of steps that are passed over, in the ledger first.

    A skipped step counts as reported and leaves no trace: no losses, and nothing that
    a policy remembers. Written with the engine's lock held; read from any thread.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ranges = _merged(ledger.skips())  # replaced as a whole, never changed

    def __contains__(self, step: int) -> bool:
        return self.after(step) != step

    def after(self, step: int) -> int:
        """Returns the first step from ``step`` on that is not skipped."""
        ranges = self._ranges
        index = bisect.bisect_right(ranges, step, key=lambda range_: range_[0]) - 1
        return max(step, ranges[index][1]) if index >= 0 else step

    def add(self, start: int, stop: int, *, next_step: int) -> None:
        """Records a range, and the first step that is not closed after it."""
        self._ledger.add_skip(start, stop, next_step=next_step)
        self._ranges = _merged([*self._ranges, (start, stop)])


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Returns the same steps in ranges that neither overlap nor touch, in order."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            start, last = merged.pop()
            stop = max(stop, last)
        merged.append((start, stop))
    return tuple(merged)
