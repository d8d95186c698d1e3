"""What a stream of batches is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
from jaxtyping import Int64

from curator import wire
from curator.engine import SessionEngine
from curator.errors import ConfigError
from curator.ledger import StepRecord
from curator.rpc.v1 import curation_pb2 as pb
from curator.sessions import rank_slice

__all__ = ["BatchSource", "Credits", "header_of"]


class Credits:
    """How many more batches a client wants."""

    def __init__(self, initial: int) -> None:
        self._available = asyncio.Semaphore(max(1, initial))
        self._ended = False

    async def read(self, requests: AsyncIterator[pb.StreamBatchesRequest]) -> None:
        """Adds credits as they arrive, until the client hangs up."""
        async for request in requests:
            for _ in range(request.credits):
                self._available.release()
        self._ended = True
        self._available.release()

    async def take(self) -> bool:
        """Takes a credit, waiting for one; False once the client has hung up."""
        await self._available.acquire()
        return not self._ended


class BatchSource:
    """Headers and encoded rows of the batches of one stream."""

    def __init__(
        self,
        engine: SessionEngine,
        start: pb.StreamStart,
        blocking: Callable[..., Awaitable[Any]],
    ) -> None:
        """Checks what the client asks for.

        Raises:
            SessionError: There is no such rank.
            ConfigError: There is no such column.
        """
        self._engine = engine
        self._super_batches = start.super_batches
        self._blocking = blocking
        self._rows = rank_slice(engine.spec.batch_size, start.rank, start.world_size)
        columns = wire.columns_from_proto(start)
        names = engine.pool.schema.names
        if columns is None:
            columns = names if engine.spec.columns is None else engine.spec.columns
        unknown = [column for column in columns if column not in names]
        if unknown:
            msg = f"no columns {unknown} in the pool; it has {names}"
            raise ConfigError(msg)
        self._columns = columns

    async def batch(self, step: int) -> tuple[pb.BatchHeader, list[memoryview]]:
        """Returns the header and the encoded rows of a step, once it is defined."""
        if self._super_batches:
            return await self._blocking(self._encode_super_batch, step)
        future = await self._blocking(self._engine.record, step)
        record = await asyncio.wrap_future(future)
        return await self._blocking(self._encode, record)

    def _encode_super_batch(self, step: int) -> tuple[pb.BatchHeader, list[memoryview]]:
        candidates = self._engine.super_batch(step)
        header = pb.BatchHeader(
            step=step,
            epoch=candidates.epoch,
            example_ids=wire.ids_to_proto(candidates.ids),
        )
        return self._with_rows(header, candidates.ids)

    def _encode(self, record: StepRecord) -> tuple[pb.BatchHeader, list[memoryview]]:
        return self._with_rows(header_of(record, self._rows), record.ids[self._rows])

    def _with_rows(
        self, header: pb.BatchHeader, ids: Int64[np.ndarray, " n"]
    ) -> tuple[pb.BatchHeader, list[memoryview]]:
        if not self._columns:
            return header, []
        parts = wire.rows_to_parts(self._engine.pool.take(ids, self._columns))
        header.payload_bytes = sum(len(part) for part in parts)
        return header, parts


def header_of(record: StepRecord, rows: slice) -> pb.BatchHeader:
    """Returns the header of some rows of a step's batch."""
    scores = b""
    if record.scores is not None:
        scores = wire.floats_to_proto(record.scores[rows])
    return pb.BatchHeader(
        step=record.step,
        epoch=record.epoch,
        example_ids=wire.ids_to_proto(record.ids[rows]),
        weights=wire.floats_to_proto(record.weights[rows]),
        scores=scores,
        snapshot_step=record.snapshot_step,
        late=record.late,
    )
