"""How far a trainer is: what it was handed, what it reported, and what comes next."""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

from curator.client._transport import Delivery
from curator.errors import FeedbackError, StepNotReportedError
from curator.sessions import SessionInfo

__all__ = ["Progress", "warn_of_passed"]

_log = logging.getLogger(__name__)

# Steps that were handed out and never reported, as trainers that need no feedback do;
# enough for any look-ahead, little to keep.
MAX_OUTSTANDING = 4096

# Later steps that are reported, or weights that are not published, when one is taken
# to be forgotten.
_FORGOTTEN = 64

_HandedOut: TypeAlias = tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"] | None]


class Progress:
    """The steps of a session, as one rank of its trainer goes through them.

    Attributes:
        next_step: The next step to hand to the trainer.
        unreported: The first step that is not reported.
        needs_initial_snapshot: Whether the trainer has to publish before it is handed
            anything.
        reports: Whether it is known to report its steps: then reports, not fetches, are
            its progress.
    """

    def __init__(self, info: SessionInfo, *, publishes: bool) -> None:
        """Starts where the session is.

        Args:
            info: What the session was when it was opened.
            publishes: Whether it is this rank that publishes the learner's weights.
        """
        self._info = info
        self.next_step = info.next_step
        self.unreported = info.next_step
        self.needs_initial_snapshot = publishes and info.needs_initial_snapshot
        self._publishes = publishes
        self._reported: set[int] = set()  # those after `unreported`
        self._published = info.next_step  # taken to be, when it was opened
        self._told_published = -1
        self._told = -1  # of which step it was said that it is not reported
        self._epoch = self._epoch_end = -1  # of the last batch that was handed out
        self._depends_on_reports = info.spec.depends_on_reports
        needs_reports = self._depends_on_reports or info.depends_on_losses
        self.reports = needs_reports or info.next_step > 0
        self._outstanding: collections.OrderedDict[int, _HandedOut] = (
            collections.OrderedDict()
        )

    @property
    def step(self) -> int:
        """Where the trainer is: the first step that it is not through with."""
        return self.unreported if self.reports else self.next_step

    @property
    def first_to_skip(self) -> int:
        """The first step that is not reported, unless this trainer reports none."""
        may_report = len(self._outstanding) <= _FORGOTTEN
        return self.unreported if may_report else self.step

    def check_next(self) -> None:
        """Checks that the trainer is not about to wait for itself.

        Raises:
            StepNotReportedError: The next step depends on what it has not sent.
        """
        info, spec, step = self._info, self._info.spec, self.next_step
        if step == self._end:
            return
        if self.needs_initial_snapshot:
            msg = (
                f"session {info.name!r} scores with your learner from the first step: "
                "call session.publish(model) before the first batch, or give the "
                "learner its weights in the server's configuration"
            )
            raise StepNotReportedError(msg)
        starts_epoch = step == self._epoch_end and info.depends_on_losses
        if not (self._depends_on_reports or starts_epoch):
            return
        awaited = step - 1 - spec.max_ahead
        if self.unreported <= awaited:
            what = "starts an epoch that is planned" if starts_epoch else "is selected"
            msg = (
                f"step {step} {what} as of the report of step {awaited} (max_ahead "
                f"= {spec.max_ahead}), and step {self.unreported} is not reported: "
                "call session.report(batch, loss=...) after each step. A loader that "
                f"looks n batches ahead needs max_ahead >= n in the session"
            )
            raise StepNotReportedError(msg)

    @property
    def _end(self) -> int | None:
        """Where the session ends, as far as this trainer knows."""
        info, num_epochs = self._info, self._info.spec.num_epochs
        is_last = num_epochs is not None and self._epoch == num_epochs - 1
        if info.num_steps is None and is_last:
            return self._epoch_end
        return info.num_steps

    def arrive(self, delivery: Delivery) -> None:
        """Notes the next step that has arrived: a batch, or its candidates."""
        # What lies between was skipped, before this trainer was restarted.
        self._close(range(self.next_step, delivery.step))
        self.next_step = delivery.step + 1
        self._epoch = delivery.epoch
        self._epoch_end = delivery.epoch_first_step + delivery.epoch_num_steps

    def hand_out(self, batch: Delivery) -> None:
        """Notes that a batch is in the trainer's hands, and waits for a report."""
        weights = batch.weights
        self._outstanding[batch.step] = (
            batch.ids.copy(),
            None if weights is None else weights.copy(),
        )
        if len(self._outstanding) > MAX_OUTSTANDING:
            self._outstanding.popitem(last=False)

    def find(
        self, ids: Int64[np.ndarray, " n"]
    ) -> tuple[int, Int64[np.ndarray, " n"], Float32[np.ndarray, " n"] | None]:
        """Returns the step of a batch that was handed out, its ids, and its weights.

        Raises:
            FeedbackError: They are those of no batch that waits for a report.
        """
        for step, (outstanding, weights) in self._outstanding.items():
            if np.array_equal(ids, outstanding):
                return step, outstanding, weights
        steps = list(self._outstanding)
        waiting = f"steps {steps[0]} to {steps[-1]}" if steps else "no steps"
        msg = (
            f"these {len(ids)} ids are those of no batch that waits for a report "
            f"({waiting} do): report each batch as it was handed out, in its order"
        )
        raise FeedbackError(msg)

    def report(self, step: int) -> None:
        """Notes that a step is reported."""
        self.reports = True
        self._outstanding.pop(step, None)
        self._close([step])
        if len(self._reported) >= _FORGOTTEN and self._told != self.unreported:
            self._told = self.unreported
            _log.warning(
                "session %r: step %d is not reported, and %d later ones are: "
                "state_dict() stays at it, and a restart goes back to it. Report every "
                "batch that was handed out, or pass over it with session.skip()",
                self._info.name,
                self.unreported,
                len(self._reported),
            )
        if self._publishes:
            self._look_for_weights(step + 1)

    def publish(self, step: int) -> None:
        """Notes that weights of a step are published."""
        self.needs_initial_snapshot = False
        self._published = step

    def _look_for_weights(self, step: int) -> None:
        """Warns of a trainer that reports on and on, and publishes nothing."""
        every = self._info.spec.publish_every
        silent = step - self._published >= _FORGOTTEN * every
        if silent and self._told_published != self._published:
            self._told_published = self._published
            _log.warning(
                "session %r: no weights are published since step %d: batches are "
                "scored with those, not with the model that is trained. Call "
                "session.publish(model) before session.report(batch); publish_every "
                "= %d says how often it sends them",
                self._info.name,
                self._published,
                every,
            )

    def skip(self, steps: range) -> None:
        """Notes that steps are passed over: they need no report."""
        for step in steps:
            self._outstanding.pop(step, None)
        self._close(steps)
        self.next_step = max(self.next_step, steps.stop)

    def go_to(self, step: int) -> None:
        """Goes to another step; nothing from there on is handed out or reported."""
        self.next_step = self.unreported = self._published = step
        self._outstanding.clear()
        self._reported.clear()

    def _close(self, steps: Iterable[int]) -> None:
        """Notes that steps need no report any more."""
        self._reported.update(step for step in steps if step >= self.unreported)
        while self.unreported in self._reported:
            self._reported.remove(self.unreported)
            self.unreported += 1


def warn_of_passed(steps: range, session: str) -> None:
    """Warns of steps that a trainer had passed before it reported anything."""
    _log.warning(
        "session %r: steps %d to %d were fetched and left before anything was "
        "reported: they are skipped. Report each batch that is trained on, and open "
        "the session anew after a look at its first batches",
        session,
        steps.start,
        steps.stop - 1,
    )
