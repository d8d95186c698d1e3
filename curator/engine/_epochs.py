"""Which candidates each step has: a sampler's epochs, end to end."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
from jaxtyping import Float32, Int64

from curator.config import SessionSpec, Weighting
from curator.engine._drafting import column_values
from curator.engine._plan_states import PlanState, PlanStates
from curator.errors import ConfigError, SessionError
from curator.ledger import Ledger
from curator.pools import Pool
from curator.samplers import EpochPlan, EpochPlanner, ResumablePlanner, Run, Sampler
from curator.types import SuperBatch

__all__ = ["Epochs", "start_epochs"]


class Epochs:
    """Cuts the epochs of a sampler into super-batches, and numbers them.

    The ``num_examples % super_batch_size`` examples at the end of an epoch's plan are
    not offered in that epoch. Where plans are made from losses, all state is what the
    ledger holds: plans are made again from the first, when a session is opened again.

    Safe to use from several threads.

    Attributes:
        depends_on_losses: Whether plans are made from reported losses.
    """

    def __init__(
        self,
        sampler: Sampler,
        run: Run,
        ledger: Ledger,
        *,
        num_steps: int | None,
        max_ahead: int,
        weighting: Weighting,
        states: PlanStates,
        last_epoch: int | None = None,
    ) -> None:
        """Starts a sampler on a run.

        Args:
            sampler: The sampler.
            run: Its run; ``run.num_epochs`` ends the session.
            ledger: Where reported losses are.
            num_steps: What ends the session, too.
            max_ahead: The plan of an epoch that starts at step s is made as of the
                report of step ``s - 1 - max_ahead``.
            weighting: The convention of the weights.
            states: Where states of planners are kept.
            last_epoch: The latest epoch to go on from; None for the latest there is.

        Raises:
            ConfigError: The run does not fit the sampler.
            StorageError: A state is damaged.
        """
        self._sampler = sampler
        self._run = run
        self._ledger = ledger
        self._max_num_steps = num_steps
        self._max_ahead = max_ahead
        self._weighting: Weighting = weighting
        self._states = states
        self._is_past = last_epoch is not None
        self._lock = threading.Lock()
        self._planner: EpochPlanner = sampler.start(run)
        self._first = [0]  # first step of each epoch that is planned, and of the next
        self._plan: EpochPlan | None = None
        self._planned = -1  # the epoch of `_plan`
        self._num_observed = 0  # steps whose losses the planner has seen
        self._past: Epochs | None = None  # at an epoch before that
        size = self._planner.num_examples_per_epoch
        self._fixed = None if size is None else self._num_steps_of(0, size)
        self.depends_on_losses = size is None
        self._has_resumed = size is not None
        if isinstance(self._planner, ResumablePlanner):
            self._restore(self._planner, last_epoch)

    def _restore(self, planner: ResumablePlanner, last_epoch: int | None) -> None:
        state = self._states.newest(
            last_epoch=last_epoch, num_reported=self._ledger.next_step()
        )
        if state is not None:
            planner.restore(state.epoch, state.arrays)
            self._first = state.first_steps.tolist()
            self._num_observed = state.num_observed

    def needed_from(self) -> int | None:
        """Returns the first step whose reports are still needed; None for no step."""
        if self._fixed is not None:
            return None
        with self._lock:
            return self._states.needed_from()

    @property
    def num_bytes(self) -> int:
        """How much the sampler holds of each example: columns, and what it has seen."""
        arrays = list(self._run.columns.values())
        if isinstance(self._planner, ResumablePlanner):
            arrays += self._planner.state().values()
        return sum(array.nbytes for array in arrays)

    @property
    def num_steps(self) -> int | None:
        """How long the session is; None where it is endless, or not known yet."""
        num_steps, num_epochs = self._max_num_steps, self._run.num_epochs
        if num_epochs is None:
            return num_steps
        if self._fixed is not None:
            end = num_epochs * self._fixed
        else:
            self._resume()
            if len(self._first) <= num_epochs:
                return num_steps
            end = self._first[num_epochs]
        return end if num_steps is None else min(num_steps, end)

    def awaited(self, step: int) -> int | None:
        """Returns which step has to be reported before ``step`` has candidates.

        None where there is nothing to wait for. All steps before it count, too.
        """
        self._resume()
        if self._fixed is not None or step < self._first[-1]:
            return None
        awaited = self._first[-1] - 1 - self._max_ahead
        return awaited if awaited >= 0 else None

    def _resume(self) -> None:
        """Plans the epochs that had begun before a restart, unless that is done.

        Where the running one ends, and so what the next one waits for, is not known
        without. What keeps it from being planned is left to who asks for its steps.
        """
        if self._has_resumed:
            return
        with self._lock, contextlib.suppress(Exception):  # a sampler's own, too
            self._advance(self._ledger.num_defined() - 1)
            self._has_resumed = True

    def epoch(self, step: int) -> tuple[int, int]:
        """Returns the first step of a step's epoch, and its number of steps.

        The step is defined, or may be.
        """
        if self._fixed is not None:
            return step - step % self._fixed, self._fixed
        with self._lock:
            self._advance(step)
            epoch = self._epoch_of(step)
            first = self._first[epoch]
            return first, self._first[epoch + 1] - first

    def epoch_of(self, step: int) -> int:
        """Returns the epoch of a step that is defined, or may be."""
        if self._fixed is not None:
            return step // self._fixed
        with self._lock:
            self._advance(step)
            return self._epoch_of(step)

    def super_batch(self, step: int) -> SuperBatch:
        """Returns the candidates of a step, the same ones whenever it is asked.

        Raises:
            SessionError: What :meth:`awaited` says has not been reported.
        """
        with self._lock:
            if self._fixed is not None:
                epoch, index = divmod(step, self._fixed)
                if epoch != self._planned or self._plan is None:
                    self._plan, self._planned = self._planner.plan(epoch), epoch
            else:
                self._advance(step)
                epoch = self._epoch_of(step)
                if epoch != self._planned:
                    return self._in_the_past(epoch).super_batch(step)
                index = step - self._first[epoch]
            plan = self._plan
        assert plan is not None
        start = index * self._run.super_batch_size
        ids, weights = plan.take(start, start + self._run.super_batch_size)
        self._check(ids)
        return SuperBatch(step, epoch, ids, self._weights(weights, plan))

    def _check(self, ids: Int64[np.ndarray, " _"]) -> None:
        """Raises ``ConfigError`` unless a sampler has given ids of the pool."""
        size, num_examples = self._run.super_batch_size, self._run.num_examples
        if len(ids) != size or ids.min() < 0 or ids.max() >= num_examples:
            some = f" from {ids.min()} to {ids.max()}" if len(ids) else ""
            msg = (
                f"sampler {self._sampler!r} gave {len(ids)} ids{some} where {size} "
                f"from 0 to {num_examples - 1} are asked for"
            )
            raise ConfigError(msg)

    def _in_the_past(self, epoch: int) -> Epochs:
        """Returns epochs that are planned up to an earlier one, from the first."""
        if self._past is None or self._past._planned != epoch:
            self._past = Epochs(
                self._sampler,
                self._run,
                self._ledger,
                num_steps=self._max_num_steps,
                max_ahead=self._max_ahead,
                weighting=self._weighting,
                states=self._states,
                last_epoch=epoch,
            )
        return self._past

    def _weights(
        self, weights: Float32[np.ndarray, " B"] | None, plan: EpochPlan
    ) -> Float32[np.ndarray, " B"] | None:
        if weights is None or self._weighting == "sum":
            return weights
        return (weights / plan.mean_weight).astype(np.float32)

    def _epoch_of(self, step: int) -> int:
        return int(np.searchsorted(self._first, step, side="right")) - 1

    def _advance(self, step: int) -> None:
        """Plans epochs up to that of a step. Called with the lock held."""
        while step >= (first := self._first[-1]):
            as_of = max(0, first - self._max_ahead)
            if self._ledger.next_step() < as_of:
                msg = (
                    f"the candidates of step {step} depend on the losses of step "
                    f"{as_of - 1}, which is not reported: report each step"
                )
                raise SessionError(msg)
            if as_of > self._num_observed:
                if self._num_observed < self._ledger.first_step():
                    msg = (
                        f"the candidates of step {step} were planned from losses that "
                        "are no longer kept (server.keep_steps)"
                    )
                    raise SessionError(msg)
                for ids, losses in self._ledger.feedback(self._num_observed, as_of):
                    self._planner.observe(ids, losses)
                self._num_observed = as_of
            self._keep_state()
            self._planned = len(self._first) - 1
            self._plan = self._planner.plan(self._planned)
            num_steps = self._num_steps_of(self._planned, self._plan.num_examples)
            self._first.append(first + num_steps)

    def _num_steps_of(self, epoch: int, num_examples: int) -> int:
        """Returns how many super-batches an epoch has.

        Raises:
            ConfigError: None, and so no step would ever be in it.
        """
        num_steps = num_examples // self._run.super_batch_size
        if num_steps < 1:
            msg = (
                f"sampler {self._sampler!r} planned {num_examples} examples for epoch "
                f"{epoch}: fewer than a super-batch, of {self._run.super_batch_size}"
            )
            raise ConfigError(msg)
        return num_steps

    def _keep_state(self) -> None:
        """Keeps the planner's state before the next plan, if that is a new one."""
        epoch = len(self._first) - 1
        if (
            epoch > 0
            and not self._is_past
            and isinstance(self._planner, ResumablePlanner)
        ):
            state = PlanState(
                np.array(self._first), self._num_observed, self._planner.state()
            )
            self._states.save(state)


def start_epochs(
    spec: SessionSpec, pool: Pool, ledger: Ledger, states: PlanStates
) -> Epochs:
    """Starts a session's sampler on its pool."""
    columns: dict[str, np.ndarray] = {}
    if spec.sampler.columns:
        names = sorted(spec.sampler.columns)
        rows = pool.take(np.arange(pool.num_examples), names)
        columns = {
            name: column_values(name, rows.column(name), nulls=False) for name in names
        }
    run = Run(
        num_examples=pool.num_examples,
        super_batch_size=spec.super_batch_size,
        seed=spec.seed,
        num_epochs=spec.num_epochs,
        columns=columns,
    )
    return Epochs(
        spec.sampler,
        run,
        ledger,
        num_steps=spec.num_steps,
        max_ahead=spec.max_ahead,
        weighting=spec.weighting,
        states=states,
    )
