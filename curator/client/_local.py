"""Sessions in this process: the same engine, no server and no network."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

from curator.client._transport import Delivery, StreamRequest
from curator.config import SessionSpec
from curator.engine import Registry, SessionEngine
from curator.ledger import StepRecord
from curator.sessions import SessionInfo, rank_slice
from curator.types import Features

__all__ = ["LocalTransport"]


class LocalTransport:
    """A :class:`Transport` on top of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self, name: str, spec: SessionSpec | None) -> SessionInfo:
        """Opens a session, or resumes it."""
        return self._registry.open(name, spec).info()

    def describe(self, name: str) -> SessionInfo:
        """Describes a session."""
        return self._registry.open(name).info()

    def names(self) -> list[str]:
        """Lists the sessions."""
        return self._registry.names()

    def open_sessions(self) -> list[SessionInfo]:
        """Describes the sessions that are open."""
        return self._registry.open_sessions()

    def stream(self, request: StreamRequest) -> _LocalStream:
        """Opens a stream of batches."""
        return _LocalStream(self._registry.open(request.session), request)

    def select(
        self, name: str, step: int, ids: Int64[np.ndarray, " B"], features: Features
    ) -> Delivery:
        """Returns the sub-batch for features of a super-batch, without rows."""
        engine = self._registry.open(name)
        record = engine.select(step, ids, features)
        return _delivery(engine, record, slice(None))

    def report(
        self,
        name: str,
        step: int,
        rank: int,
        world_size: int,
        ids: Int64[np.ndarray, " n"],
        losses: Float[np.ndarray, " n"] | None,
    ) -> int | None:
        """Reports a rank's slice of a step; returns an earlier one that lacks it."""
        engine = self._registry.open(name)
        return engine.report(step, rank, world_size, ids, losses)[2]

    def fork(
        self, name: str, new_name: str, step: int, *, forget_memory: bool
    ) -> SessionInfo:
        """Opens a session that is another one up to a step."""
        engine = self._registry.fork(name, new_name, step, forget_memory=forget_memory)
        return engine.info()

    def skip(self, name: str, start: int, stop: int) -> bool:
        """Passes over steps; False where they have been skipped already."""
        return self._registry.open(name).skip(start, stop)

    def publish(
        self, name: str, snapshot_step: int, report_step: int, weights: bytes
    ) -> bool:
        """Publishes weights; False where that step's were published already."""
        engine = self._registry.open(name)
        return engine.publish(snapshot_step, report_step, [weights], len(weights))

    def close(self) -> None:
        """Closes the sessions."""
        self._registry.close()


class _LocalStream:
    """Batches straight from an engine."""

    def __init__(self, engine: SessionEngine, request: StreamRequest) -> None:
        self._engine = engine
        self._request = request
        self._slice = rank_slice(
            engine.spec.batch_size, request.rank, request.world_size
        )
        self._credits = threading.Semaphore(request.credits)
        self._closed = threading.Event()
        self._future: concurrent.futures.Future[StepRecord] | None = None
        self._columns = engine.delivery.columns(request.columns)

    def __iter__(self) -> Iterator[Sequence[Delivery]]:
        step, has_credit = self._request.from_step, False
        while (step := self._engine.after_skips(step)) != self._engine.num_steps:
            if not has_credit:
                self._credits.acquire()
            has_credit = True
            if self._closed.is_set():
                return
            if self._request.super_batches:
                delivery = self._super_batch(step)
                if delivery is None:
                    return
            else:
                self._future = self._engine.record(step)
                if self._closed.is_set():
                    return
                try:
                    record = self._future.result()
                except concurrent.futures.CancelledError:
                    return
                delivery = self._with_rows(_delivery(self._engine, record, self._slice))
            if self._engine.after_skips(step) == step:  # not skipped meanwhile
                yield [delivery]
                step, has_credit = step + 1, False

    def _super_batch(self, step: int) -> Delivery | None:
        candidates = self._engine.super_batch(step, self._closed.is_set)
        if candidates is None:
            return None
        first, num_steps = self._engine.epoch(step)
        return self._with_rows(
            Delivery(
                step=step,
                epoch=candidates.epoch,
                ids=candidates.ids,
                weights=None,
                scores=None,
                snapshot_step=None,
                late=False,
                epoch_first_step=first,
                epoch_num_steps=num_steps,
                weighting=self._engine.spec.weighting,
                rows=None,
            )
        )

    def _with_rows(self, delivery: Delivery) -> Delivery:
        if not self._columns:
            return delivery
        rows = self._engine.delivery.rows(delivery.ids, self._columns)
        return delivery.with_rows(rows)

    def add_credits(self, num_batches: int, *, widen: bool = False) -> None:
        """Lets more batches be sent."""
        self._credits.release(num_batches)

    def close(self) -> None:
        """Ends the stream, also while it waits."""
        self._closed.set()
        self._credits.release()
        self._engine.wake()
        if self._future is not None:
            self._future.cancel()


def _delivery(engine: SessionEngine, record: StepRecord, rows: slice) -> Delivery:
    first, num_steps = engine.epoch(record.step)
    return Delivery(
        step=record.step,
        epoch=record.epoch,
        # Copies: what the trainer does to them is no business of the engine's.
        ids=record.ids[rows].copy(),
        weights=record.weights[rows].copy(),
        scores=None if record.scores is None else record.scores[rows].copy(),
        snapshot_step=record.snapshot_step,
        late=record.late,
        epoch_first_step=first,
        epoch_num_steps=num_steps,
        weighting=engine.spec.weighting,
        rows=None,
    )
