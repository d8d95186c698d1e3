"""A torch module as a scorer: what all kinds of models have in common.

Shapes: ``B`` rows to score, ``b`` rows of a micro-batch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from curator.columns import column_to_torch, nulls_as_nan
from curator.errors import ConfigError, PoolError, ScoringError
from curator.models._head import Batch, Column, Head
from curator.models._module import HostedModule
from curator.types import Feature, PairEmbeddings

__all__ = ["ModuleScorer"]

_logger = logging.getLogger(__name__)


class _MicroBatch(NamedTuple):
    """Rows on the device: how many, with the padding; what module and head get."""

    size: int
    of_module: Batch
    of_head: Batch


class ModuleScorer:
    """Scores rows of a pool with a torch module, and a head that reads its output.

    The module is built by a function of the server's own configuration and called as
    ``module(batch)``, in eval mode and without gradients. ``batch`` maps each column to
    a tensor ``[b, ...]`` on the device (numbers, fixed-size lists, fixed-shape tensors)
    or to a list of b Python values (strings, binary, all else). What it has to return
    depends on the head.

    Safe to use from several threads: they have the device one after the other, and make
    their input ready while they wait for it.
    """

    def __init__(
        self,
        *,
        head: Head,
        factory: str,
        args: Mapping[str, object],
        weights: Path | None,
        device: str,
        dtype: str,
        micro_batch_size: int,
        columns: Sequence[str],
    ) -> None:
        """Builds the model and loads its weights.

        Args:
            head: The kind of model.
            factory: Import path of a function, ``"package.module:function"``.
            args: Its keyword arguments, of types that JSON has.
            weights: A safetensors file; None for the module as the factory returns it.
            device: A torch device: ``cpu``, ``cuda:1`` ...
            dtype: ``float32``, ``bfloat16`` or ``float16``; parameters, floating-point
                columns and the forward pass are in it.
            micro_batch_size: Rows per forward pass.
            columns: What the module reads.

        Raises:
            ConfigError: The factory cannot be imported or called, or returned no
                module; or another argument is wrong.
            SnapshotError: The weights do not fit the module.
            StorageError: The weights cannot be read.
        """
        if micro_batch_size < 1:
            msg = f"micro_batch_size: at least 1; got {micro_batch_size}"
            raise ConfigError(msg)
        if not columns:
            msg = "columns: at least one column of the pool for the model to read"
            raise ConfigError(msg)
        self._factory = factory
        self._head = head
        self._module_columns = tuple(columns)
        self._columns = tuple(dict.fromkeys([*columns, *head.columns]))
        self._micro_batch_size = micro_batch_size
        self._lock = threading.Lock()
        self._hosted = HostedModule(
            factory=factory,
            args=args,
            device=device,
            dtype=dtype,
            identity=[list(columns), *head.identity],
        )
        self._reader = head.over(self._hosted.module, factory)
        if weights is not None:
            self.load(weights)

    @property
    def fingerprint(self) -> str:
        """Digest of factory, arguments, dtype, columns, kind and the weights now."""
        return self._hosted.fingerprint

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the pool that the module or the head reads."""
        return self._columns

    @property
    def outputs(self) -> frozenset[str]:
        """Names of what the head can compute."""
        return self._head.outputs

    def score(
        self, rows: pa.RecordBatch, outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        """Returns the outputs asked for, all from one forward pass.

        A row whose output is not finite comes back as it is.

        When the device runs out of memory, the rows are scored again in micro-batches
        of half the size, which then stays: outputs may differ from earlier ones in
        their last bits, so this is logged as a warning.

        Raises:
            ScoringError: A column is missing, has nulls or does not fit, the model
                raised or returned something else than promised, or one row does not fit
                in memory.
            ValueError: There are no rows, or an output is not the model's.
        """
        if rows.num_rows == 0:
            msg = "there are no rows to score"
            raise ValueError(msg)
        if not outputs <= self.outputs:
            msg = (
                f"model {self._factory!r} computes {', '.join(sorted(self.outputs))}; "
                f"got {', '.join(sorted(outputs))}"
            )
            raise ValueError(msg)
        columns = {name: self._column(rows, name) for name in self.columns}
        # Made while another thread may have the device, which then need not wait.
        prepared = self._prepared(columns, rows.num_rows)
        with self._lock:
            while True:
                try:
                    return self._score(columns, rows.num_rows, outputs, prepared)
                except (RuntimeError, MemoryError) as error:
                    if not _is_out_of_memory(error):
                        raise self._failed(error) from error
                    self._halve(error)
                # Past the except block, whose traceback holds on to the tensors.
                if self._hosted.device.type == "cuda":
                    torch.cuda.empty_cache()

    def check(self, weights: Path) -> None:
        """Checks that a safetensors file fits the model; reads only its header.

        Raises:
            SnapshotError: It is corrupt, or tensors are missing, unknown, or of another
                shape or kind; the message names them.
            StorageError: It cannot be read.
        """
        self._hosted.check(weights)

    def load(self, weights: Path) -> None:
        """Replaces the weights by those of a safetensors file, all or none.

        Waits for a call of :meth:`score` at hand. Floating-point tensors are cast to
        the scorer's dtype.

        Raises:
            SnapshotError: As for :meth:`check`.
            StorageError: As for :meth:`check`.
        """
        staged = self._hosted.stage(weights)
        with self._lock:
            self._hosted.swap(staged)
            self._reader = self._head.over(self._hosted.module, self._factory)

    def _column(self, rows: pa.RecordBatch, name: str) -> Column:
        """Returns a column as a tensor that shares its memory, or as a list."""
        try:
            column = rows.column(name)
        except KeyError:
            found = ", ".join(rows.schema.names)
            msg = f"model {self._factory!r} reads {name!r}; the rows have: {found}"
            raise ScoringError(msg) from None
        if column.null_count:
            msg = (
                f"model {self._factory!r} reads {name!r}, and {column.null_count} of "
                f"{len(column)} rows have a null there: fill or drop them in the pool"
            )
            raise ScoringError(msg)
        try:
            if nulls_as_nan(column) is None:  # within its rows, as they have none
                return column_to_torch(column, None)
            why = "rows have nulls in them: fill or drop them in the pool"
        except PoolError as error:
            why = str(error)
        msg = f"model {self._factory!r} reads {name!r}: {why}"
        raise ScoringError(msg)

    def _prepared(
        self, columns: Mapping[str, Column], num_rows: int
    ) -> list[_MicroBatch]:
        """Returns the first micro-batch, or none if the device has no room for it."""
        size = self._micro_batch_size
        try:
            first = slice(size) if num_rows > size else None
            return [self._micro_batch(columns, first, size)]
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise self._failed(error) from error
            return []

    def _score(
        self,
        columns: Mapping[str, Column],
        num_rows: int,
        outputs: frozenset[str],
        prepared: list[_MicroBatch],
    ) -> Mapping[str, Feature]:
        """Scores all rows in micro-batches of the present size.

        Args:
            columns: The rows.
            num_rows: How many they are.
            outputs: What is asked for.
            prepared: The first micro-batch, if it is made and of the present size; is
                taken out, so that nobody holds on to its memory.
        """
        size = self._micro_batch_size
        parts: list[Mapping[str, Feature]] = []
        for start in range(0, num_rows, size):
            batch = prepared.pop() if prepared else None
            if batch is None or batch.size != size:
                rows = slice(start, min(start + size, num_rows))
                batch = self._micro_batch(columns, rows, size)
            with torch.inference_mode():
                returned = self._forward(batch.of_module)
                parts.append(self._reader(returned, batch.of_head, size, outputs))
            del batch, returned  # before the next one is made
        return {
            name: self._joined([part[name] for part in parts], num_rows)
            for name in sorted(outputs)
        }

    def _micro_batch(
        self, columns: Mapping[str, Column], rows: slice | None, size: int
    ) -> _MicroBatch:
        """Returns rows, all of them for None, on the device, padded to ``size``.

        The head gets a copy of its own, whatever the module does to its input.
        """

        def batch(names: Sequence[str]) -> Batch:
            found = {name: columns[name] for name in names}
            if rows is not None:
                found = {name: values[rows] for name, values in found.items()}
            return {name: self._padded(values, size) for name, values in found.items()}

        return _MicroBatch(size, batch(self._module_columns), batch(self._head.columns))

    def _padded(self, values: Column, size: int) -> Column:
        """Returns values on the device, padded to ``size`` by repeating the last one.

        Always a copy: where the model writes into its input, it must not write into the
        pool's memory, and kernels choose their path by alignment, which the allocator
        makes the same every time.
        """
        if isinstance(values, list):
            return [*values, *[values[-1]] * (size - len(values))]
        device = self._hosted.device
        dtype = self._hosted.dtype if values.is_floating_point() else values.dtype
        if len(values) == size:
            return values.to(device, dtype, copy=True)
        padded = torch.empty((size, *values.shape[1:]), dtype=dtype, device=device)
        padded[: len(values)].copy_(values)
        padded[len(values) :].copy_(values[-1:])
        return padded

    def _forward(self, batch: Batch) -> object:
        try:
            if self._hosted.dtype == torch.float32:
                return self._hosted.module(batch)
            # For models that make float32 of integer input, in spite of half weights.
            with torch.autocast(
                self._hosted.device.type, dtype=self._hosted.dtype, cache_enabled=False
            ):
                return self._hosted.module(batch)
        except (Exception, SystemExit) as error:
            if _is_out_of_memory(error):
                raise
            raise self._failed(error) from error

    def _joined(self, parts: Sequence[Feature], num_rows: int) -> Feature:
        """Returns the micro-batches' rows as one feature, without the padding."""
        arrays = [part for part in parts if isinstance(part, np.ndarray)]
        if arrays:
            return np.concatenate(arrays)[:num_rows]
        pairs = [part for part in parts if isinstance(part, PairEmbeddings)]
        if len(pairs) == 1 and len(pairs[0].queries) == num_rows:
            return pairs[0]  # made by the head, so it is nobody else's memory
        widths = [pair.queries.shape[1] for pair in pairs]
        for width in widths:
            if width != widths[0]:
                msg = (
                    f"model {self._factory!r} returned embeddings of width {width} "
                    f"after {widths[0]}"
                )
                raise ScoringError(msg)
        return PairEmbeddings(
            queries=np.concatenate([pair.queries for pair in pairs])[:num_rows],
            targets=np.concatenate([pair.targets for pair in pairs])[:num_rows],
            logit_scale=pairs[-1].logit_scale,
            logit_bias=pairs[-1].logit_bias,
        )

    def _failed(self, error: BaseException) -> ScoringError:
        return ScoringError(
            f"model {self._factory!r} raised {type(error).__name__}: {error}"
        )

    def _halve(self, error: BaseException) -> None:
        size = self._micro_batch_size
        if size == 1:
            msg = (
                f"model {self._factory!r} ran out of memory on {self._hosted.device} "
                f"with one row at a time: {error}"
            )
            raise ScoringError(msg) from error
        self._micro_batch_size = size // 2
        _logger.warning(
            "model %r ran out of memory on %s with micro_batch_size = %d; continuing "
            "with %d. Set that in the configuration: after a restart the larger size "
            "would be tried again, and outputs may differ in their last bits.",
            self._factory,
            self._hosted.device,
            size,
            size // 2,
        )


def _is_out_of_memory(error: BaseException) -> bool:
    # Each device has a class of its own, or none; all of them say it in words.
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )
