"""Losses of a training run, or of a scored pool, as a sampler gets them: by steps.

Shapes: ``n`` rows of a file, ``b`` examples of a step, ``N`` the pool.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from curator.config import did_you_mean
from curator.errors import ConfigError, StorageError
from curator.offline._scores import Scores
from curator.samplers import EpochPlan

__all__ = ["Losses", "Step", "read_losses"]

Step: TypeAlias = tuple[Int64[np.ndarray, " b"], Float32[np.ndarray, " b"]]
_ID, _STEP, _EPOCH = "example_id", "step", "epoch"


@runtime_checkable
class Losses(Protocol):
    """What is known of losses, before any epoch is planned."""

    @property
    def num_examples(self) -> int:
        """Size of the pool, where that is known; else the highest id and one."""
        ...

    @property
    def pool_fingerprint(self) -> str | None:
        """Of the pool, where that is known."""
        ...

    def check(self, epoch: int) -> None:
        """Checks that there are losses of every epoch before one.

        Raises:
            ConfigError: There are not.
        """
        ...

    def steps(
        self, epoch: int, plan: EpochPlan, first_step: int, size: int
    ) -> Iterator[Step]:
        """Yields ids and losses of every step of an epoch; NaN for no loss.

        Args:
            epoch: The epoch.
            plan: Its plan.
            first_step: Its first step, by the plans so far.
            size: Of a super-batch.
        """
        ...


def read_losses(path: Path, column: str) -> Losses:
    """Returns the losses of a file or a folder.

    * With columns ``step`` and perhaps ``epoch``, as ``curator inspect --export``
      writes them, they are what a run reported: each step is given again.
    * With ``epoch`` alone, or neither (the folder that ``curator score`` wrote, any
      file with ``example_id``), they are of examples: of a run that trains on every
      candidate, and reports what is known of each.

    Raises:
        ConfigError: It has no such column, or one of another type; an example is there
            twice in a step or an epoch.
        StorageError: It cannot be read.
    """
    names = [] if path.is_dir() else _names(path)
    if _STEP in names or _EPOCH in names:
        return _read_log(path, names, column)
    scores = Scores.open(path)
    if column not in scores.numbers:
        msg = (
            f"losses {str(path)!r}: no numbers {column!r}"
            f"{did_you_mean(column, scores.numbers)}"
        )
        raise ConfigError(msg)
    manifest = scores.manifest or {}
    ids = scores.ids()
    return _OfExamples(
        num_examples=int(manifest.get("pool_num_examples", ids[-1] + 1)),
        pool_fingerprint=scores.pool_fingerprint,
        _where=f"losses {str(path)!r}",
        _by_epoch=None,
        _always=(ids, cast("np.ndarray", scores.read(column))),
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _OfExamples:
    """Losses by example; always the same ones, or others in each epoch."""

    num_examples: int
    pool_fingerprint: str | None
    _where: str
    _by_epoch: Mapping[int, Step] | None
    _always: Step | None = None

    def check(self, epoch: int) -> None:
        """Checks that there are losses of every epoch before one."""
        if self._by_epoch is not None:
            _check_epochs(self._where, self._by_epoch, epoch)

    def steps(
        self, epoch: int, plan: EpochPlan, first_step: int, size: int
    ) -> Iterator[Step]:
        """Yields the plan's super-batches with what is known of their examples."""
        ids, losses = self._always or cast("Mapping[int, Step]", self._by_epoch)[epoch]
        for start in range(0, plan.num_examples - size + 1, size):
            candidates, _ = plan.take(start, start + size)
            rows = np.minimum(np.searchsorted(ids, candidates), len(ids) - 1)
            known = ids[rows] == candidates
            yield candidates, np.where(known, losses[rows], np.float32(np.nan))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _OfSteps:
    """Losses as a run reported them, in the order of its steps."""

    num_examples: int
    pool_fingerprint: str | None
    _where: str
    _steps: Int64[np.ndarray, " n"]
    _epochs: Int64[np.ndarray, " n"] | None
    _ids: Int64[np.ndarray, " n"]
    _losses: Float32[np.ndarray, " n"]

    def check(self, epoch: int) -> None:
        """Checks that there are losses of every epoch before one."""
        if self._epochs is not None:
            _check_epochs(self._where, np.unique(self._epochs).tolist(), epoch)
        elif epoch > 0 and self._steps[0] > 0:
            msg = (
                f"{self._where}: begins with step {self._steps[0]}; the plan of an "
                "epoch depends on all that was reported before it"
            )
            raise ConfigError(msg)

    def steps(
        self, epoch: int, plan: EpochPlan, first_step: int, size: int
    ) -> Iterator[Step]:
        """Yields the steps of an epoch again."""
        if self._epochs is None:
            start, stop = first_step, first_step + plan.num_examples // size
            if self._steps[-1] < stop - 1:
                msg = (
                    f"{self._where}: ends with step {self._steps[-1]}, and epoch "
                    f"{epoch} with step {stop - 1}. A run with another sampler, seed "
                    "or super-batch has other epochs: give the column 'epoch', too"
                )
                raise ConfigError(msg)
        else:
            first, last = np.searchsorted(self._epochs, [epoch, epoch + 1]).tolist()
            start = int(self._steps[first])
            stop = int(self._steps[last - 1]) + 1
            if last < len(self._steps):
                stop = int(self._steps[last])
        bounds = np.searchsorted(self._steps, np.arange(start, stop + 1))
        for begin, end in itertools.pairwise(bounds.tolist()):
            yield self._ids[begin:end], self._losses[begin:end]


def _read_log(path: Path, names: list[str], column: str) -> Losses:
    """Returns the losses of a file with steps or epochs."""
    where = f"losses {str(path)!r}"
    wanted = [_ID, column, *(name for name in (_STEP, _EPOCH) if name in names)]
    for name in wanted:
        if name not in names:
            msg = f"{where}: no column {name!r}{did_you_mean(name, names)}"
            raise ConfigError(msg)
    table = _table(path, wanted)
    if not len(table):
        msg = f"{where}: no rows"
        raise ConfigError(msg)
    ids = _integers(where, table, _ID)
    losses = _floats(where, table, column)
    steps = _integers(where, table, _STEP) if _STEP in names else None
    epochs = _integers(where, table, _EPOCH) if _EPOCH in names else None
    if steps is None:
        assert epochs is not None
        return _of_epochs(where, ids, losses, epochs)
    order = np.argsort(steps, kind="stable")  # rows of a step stay as they are
    steps, ids, losses = steps[order], ids[order], losses[order]
    _check_distinct(where, "step", steps, ids)
    if epochs is not None:
        epochs = epochs[order]
        if np.any(np.diff(epochs) < 0):
            msg = f"{where}: a later step is of an earlier epoch"
            raise ConfigError(msg)
    return _OfSteps(
        num_examples=int(ids.max()) + 1,
        pool_fingerprint=None,
        _where=where,
        _steps=steps,
        _epochs=epochs,
        _ids=ids,
        _losses=losses,
    )


def _of_epochs(
    where: str,
    ids: Int64[np.ndarray, " n"],
    losses: Float32[np.ndarray, " n"],
    epochs: Int64[np.ndarray, " n"],
) -> Losses:
    order = np.lexsort((ids, epochs))
    ids, losses, epochs = ids[order], losses[order], epochs[order]
    _check_distinct(where, "epoch", epochs, ids)
    values, starts = np.unique(epochs, return_index=True)
    bounds = [*starts.tolist(), len(epochs)]
    return _OfExamples(
        num_examples=int(ids.max()) + 1,
        pool_fingerprint=None,
        _where=where,
        _by_epoch={
            epoch: (ids[bounds[i] : bounds[i + 1]], losses[bounds[i] : bounds[i + 1]])
            for i, epoch in enumerate(values.tolist())
        },
    )


def _check_epochs(where: str, found: Any, epoch: int) -> None:
    missing = [each for each in range(epoch) if each not in found]
    if missing:
        msg = (
            f"{where}: no losses of epoch {missing[0]}; the plan of epoch {epoch} "
            "depends on those of all before it"
        )
        raise ConfigError(msg)


def _check_distinct(
    where: str, what: str, groups: Int64[np.ndarray, " n"], ids: Int64[np.ndarray, " n"]
) -> None:
    order = np.lexsort((ids, groups))
    same = (np.diff(groups[order]) == 0) & (np.diff(ids[order]) == 0)
    if same.any():
        row = order[1:][same][0]
        msg = (
            f"{where}: example {ids[row]} is there more than once in {what} "
            f"{groups[row]}"
        )
        raise ConfigError(msg)


def _names(path: Path) -> list[str]:
    return list(_read(path, lambda: pq.read_schema(path)).names)


def _table(path: Path, columns: list[str]) -> pa.Table:
    return _read(
        path,
        lambda: pq.read_table(path, columns=columns, page_checksum_verification=True),
    )


def _read(path: Path, read: Any) -> Any:
    try:
        return read()
    except OSError as error:
        if error.errno is None:
            msg = f"losses {str(path)!r} is not a whole Parquet file: {error}"
            raise ConfigError(msg) from error
        msg = f"losses {str(path)!r} cannot be read: {error.strerror}"
        raise StorageError(msg) from error
    except pa.ArrowException as error:
        msg = f"losses {str(path)!r} is not a whole Parquet file: {error}"
        raise ConfigError(msg) from error


def _integers(where: str, table: pa.Table, name: str) -> Int64[np.ndarray, " n"]:
    column = table[name]
    if not pa.types.is_integer(column.type) or column.null_count:
        msg = (
            f"{where}: {name!r} is {column.type} with {column.null_count} nulls; "
            "expected integers"
        )
        raise ConfigError(msg)
    values = column.to_numpy().astype(np.int64)
    if values.min() < 0:
        msg = f"{where}: {name!r} is {values.min()} somewhere; expected at least 0"
        raise ConfigError(msg)
    return values


def _floats(where: str, table: pa.Table, name: str) -> Float32[np.ndarray, " n"]:
    column = table[name]
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        msg = f"{where}: {name!r} is {kind}; expected numbers"
        raise ConfigError(msg)
    with np.errstate(over="ignore"):  # infinite, which samplers put aside
        return column.to_numpy().astype(np.float32)
