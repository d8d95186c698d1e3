"""The seam between the client and wherever sessions live: a server, or this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64

from curator.config import SessionSpec, Weighting
from curator.sessions import SessionInfo
from curator.types import Features

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BatchStream", "Delivery", "StreamRequest", "Transport"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One batch as it arrives.

    Attributes:
        step: The step.
        epoch: The sampler's epoch.
        ids: Example ids of this rank's rows.
        weights: Loss multipliers; None for a super-batch.
        scores: What each was ranked by, or None.
        snapshot_step: Which learner scored it, or None.
        late: Scorers fell behind: a uniform draw.
        epoch_first_step: The first step of the sampler's epoch.
        epoch_num_steps: How many steps that epoch has.
        weighting: What the sampler's weights preserve.
        rows: The columns; None where none were asked for.
    """

    step: int
    epoch: int
    ids: Int64[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"] | None
    scores: Float32[np.ndarray, " n"] | None
    snapshot_step: int | None
    late: bool
    epoch_first_step: int
    epoch_num_steps: int
    weighting: Weighting
    rows: pa.RecordBatch | None

    def with_rows(self, rows: pa.RecordBatch) -> Delivery:
        """Returns the same batch with these rows."""
        return dataclasses.replace(self, rows=rows)


@dataclasses.dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a stream of batches is to hold.

    Attributes:
        session: Name of the session.
        rank: This trainer process.
        world_size: How many there are.
        from_step: The first step.
        columns: Which columns; None for the session's, empty for ids only.
        super_batches: The candidates of each step instead of its batch.
        credits: How many batches may be under way at once.
    """

    session: str
    rank: int
    world_size: int
    from_step: int
    columns: Sequence[str] | None
    super_batches: bool
    credits: int


@runtime_checkable
class BatchStream(Protocol):
    """Batches in step order, ending with the session."""

    def __iter__(self) -> Iterator[Sequence[Delivery]]:
        """Yields the batches, those together that arrive together."""
        ...

    def add_credits(self, num_batches: int, *, widen: bool = False) -> None:
        """Lets more batches be sent.

        Args:
            num_batches: How many.
            widen: Whether they are on top of those that have arrived, so that more
                may be under way at once from now on.
        """
        ...

    def close(self) -> None:
        """Ends the stream, also from another thread while it waits."""
        ...


@runtime_checkable
class Transport(Protocol):
    """The calls of the service. Errors are those of :mod:`curator.errors`."""

    def open(self, name: str, spec: SessionSpec | None) -> SessionInfo:
        """Opens a session, or resumes it."""
        ...

    def describe(self, name: str) -> SessionInfo:
        """Describes a session."""
        ...

    def names(self) -> list[str]:
        """Lists the sessions."""
        ...

    def open_sessions(self) -> list[SessionInfo]:
        """Describes the sessions that are open."""
        ...

    def stream(self, request: StreamRequest) -> BatchStream:
        """Opens a stream of batches."""
        ...

    def select(
        self, name: str, step: int, ids: Int64[np.ndarray, " B"], features: Features
    ) -> Delivery:
        """Returns the sub-batch for features of a super-batch, without rows."""
        ...

    def report(
        self,
        name: str,
        step: int,
        rank: int,
        world_size: int,
        ids: Int64[np.ndarray, " n"],
        losses: Float[np.ndarray, " n"] | None,
    ) -> int | None:
        """Reports a rank's slice of a step.

        Returns:
            An earlier step that waits for this rank's report, if there is one.
        """
        ...

    def fork(
        self, name: str, new_name: str, step: int, *, forget_memory: bool
    ) -> SessionInfo:
        """Opens a session that is another one up to a step."""
        ...

    def skip(self, name: str, start: int, stop: int) -> bool:
        """Passes over steps; False where they have been skipped already."""
        ...

    def publish(
        self, name: str, snapshot_step: int, report_step: int, weights: bytes
    ) -> bool:
        """Publishes weights; False where that step's were published already."""
        ...

    def close(self) -> None:
        """Ends everything."""
        ...
