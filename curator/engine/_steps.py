"""The steps that are defined, and who waits for those that are not."""

from __future__ import annotations

import collections
import concurrent.futures
import threading

from curator.engine._waiting import Waiting
from curator.errors import CuratorError, SessionError
from curator.ledger import Ledger, StepRecord

__all__ = ["READY_STEPS", "DefinedSteps"]

# Steps that do not depend on the trainer are defined this far beyond what was asked
# for: enough that delivery never waits for a policy, little to hold in memory.
READY_STEPS = 8


class DefinedSteps:
    """Steps 0 to ``num_defined`` of a session: in the ledger first, shown afterwards.

    Attributes:
        num_defined: How many there are.
    """

    def __init__(
        self, name: str, ledger: Ledger, condition: threading.Condition
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._condition = condition
        self.num_defined = ledger.num_defined()
        self._waiting = Waiting()
        # The newest records, so that delivery right after definition reads no file.
        self._recent: collections.OrderedDict[int, StepRecord] = (
            collections.OrderedDict()
        )
        self._replayed: dict[int, StepRecord] = {}

    @property
    def last_asked(self) -> int:
        """The highest step that anybody has waited for."""
        return self._waiting.last

    def future(self, step: int) -> concurrent.futures.Future[StepRecord]:
        """Returns the future record of a step: done at once where it is defined."""
        with self._condition:
            if step >= self.num_defined:
                future = self._waiting.add(step)
                self._condition.notify_all()
                return future
        future = concurrent.futures.Future[StepRecord]()
        future.set_result(self.get(step))
        return future

    def get(self, step: int) -> StepRecord:
        """Returns the record of a step that is defined.

        Raises:
            SessionError: It is not kept any more.
        """
        record = self._recent.get(step) or self._replayed.get(step)
        if record is None:
            # Whoever asks for an old step asks for the ones after it, too.
            steps = self._ledger.steps(step, step + READY_STEPS)
            self._replayed = {record.step: record for record in steps}
            record = self._replayed.get(step)
        if record is None and step < (first := self._ledger.first_step()):
            msg = (
                f"step {step} of session {self._name!r} is no longer kept "
                f"(server.keep_steps): the oldest is {first}"
            )
            raise SessionError(msg)
        if record is None:  # steps are contiguous: only a damaged ledger lacks one
            msg = f"session {self._name!r}: the ledger lacks step {step}"
            raise CuratorError(msg)
        return record

    def add(self, *records: StepRecord, forget_before: int = 0) -> None:
        """Writes the next steps to the ledger, and only then shows them."""
        self._ledger.append(*records, forget_before=forget_before)
        ready: list[tuple[concurrent.futures.Future[StepRecord], StepRecord]] = []
        with self._condition:
            for record in records:
                self.num_defined = record.step + 1
                self._recent[record.step] = record
                ready += [(future, record) for future in self._waiting.pop(record.step)]
            while len(self._recent) > 2 * READY_STEPS:
                self._recent.popitem(last=False)
            self._condition.notify_all()  # who selects waits for skipped steps
        for future, record in ready:
            future.set_result(record)

    def fail(self, error: Exception) -> None:
        """Fails whoever waits; nothing is tried again unasked."""
        with self._condition:
            waiting = self._waiting.fail()
        for future in waiting:
            future.set_exception(error)
