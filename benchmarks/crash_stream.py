"""What a trainer of the crash tests does, and what it receives, as plain records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

import curator
from benchmarks.crash_worlds import World, write_world
from curator.client import Batch, Session

__all__ = ["Record", "merged", "record", "steps", "uninterrupted"]

Record = dict[str, object]


def steps(
    world: World, session: Session, on_event: Callable[[int], None] = lambda _: None
) -> Iterator[Batch]:
    """Trains to the session's end; yields each batch after its step is reported.

    Args:
        world: What the losses, weights and features are.
        session: One rank's.
        on_event: Called with the step after each batch that arrives, and each call that
            is answered.
    """
    if session.info.needs_initial_snapshot:
        session.publish(world.weights(0))
    by_trainer = world.spec.features == "trainer"
    # One batch ahead, so that every step has to do with the server as it is.
    stream = (session.super_batches if by_trainer else session.batches)(prefetch=1)
    for arrived in stream:
        on_event(arrived.step)
        batch = arrived
        if by_trainer:
            features = world.features(arrived.ids, arrived.step)
            batch = session.select(arrived, learner=features)
            on_event(arrived.step)
        if world.learner is not None:
            session.publish(world.weights(batch.step + 1))
            on_event(arrived.step)
        session.report(batch, loss=world.losses(batch.ids, batch.step))
        on_event(arrived.step)
        yield batch


def record(batch: Batch) -> Record:
    """Returns all that a batch says, as JSON; arrays as the hex of their bytes."""
    return {
        "step": batch.step,
        "epoch": [batch.epoch, batch.epoch_first_step, batch.epoch_num_steps],
        "snapshot_step": batch.snapshot_step,
        "late": batch.late,
        "ids": batch.ids.tobytes().hex(),
        "weights": batch.weights.tobytes().hex(),
        "scores": "" if batch.scores is None else batch.scores.tobytes().hex(),
        "rows": "" if batch.rows is None else _digests(batch.rows),
    }


def _digests(rows: pa.RecordBatch) -> str:
    # Of the values: how a batch lies in memory depends on where it comes from.
    values = (repr(row).encode() for row in rows.to_pylist())
    return "".join(hashlib.blake2b(row, digest_size=8).hexdigest() for row in values)


def merged(slices: Sequence[Record]) -> Record:
    """Returns the record of a global batch, given those of its ranks in order."""
    whole = dict(slices[0])
    for part in slices[1:]:
        for key, value in part.items():
            if isinstance(value, str):
                whole[key] = f"{whole[key]}{value}"
            elif whole[key] != value:
                whole[key] = f"ranks disagree: {whole[key]} and {value}"
    return whole


def uninterrupted(world: World, data: Path, folder: Path) -> list[Record]:
    """Returns the stream that nothing interrupts, from a service in this process."""
    with curator.local(write_world(world, data, folder)) as service:
        return [record(batch) for batch in steps(world, service.open("s"))]
