"""Scores of a pool, of which single columns are read.

A ``table`` model holds all that is in it and answers by id. Here a column of many files
becomes one array, and what is not asked for is not read.

Shapes: ``N`` examples that have scores, ``D`` the width of a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from curator.errors import ConfigError
from curator.offline._free_memory import allocate, free_memory
from curator.offline._score_files import (
    check_schema,
    find_files,
    read_footer,
    read_manifest,
    unreadable,
)
from curator.offline._subset import subset_pool
from curator.types import Feature, PairEmbeddings

__all__ = ["Scores"]

_ID = "example_id"
_EMBEDDINGS = "embeddings"
_SIDES = ("queries", "targets")
_REQUIRED = (*_SIDES, "logit_scale")
_PAIRS = frozenset({*_REQUIRED, "logit_bias"})
# Whoever asked for rows reorders them, or converts them.
_COPIES = 2
_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of a pool's examples: a folder of ``curator score``, or other Parquet.

    What is read is as :class:`curator.models.ScoreTable` has it, in the order of ids.

    Attributes:
        path: The folder, or the file.
        manifest: What the scores are of; None where another program wrote them.
        num_examples: How many have scores.
        schema: All columns, as they are stored.
    """

    path: Path
    manifest: Mapping[str, Any] | None
    num_examples: int
    schema: pa.Schema
    _files: tuple[Path, ...]

    @classmethod
    def open(cls, path: Path) -> Scores:
        """Returns scores after a look at the files' footers.

        Raises:
            ConfigError: There are none, they are not all there, or are of several runs.
            StorageError: A file cannot be read.
        """
        files = find_files(path)
        footers = [read_footer(path, file) for file in files]
        schema = footers[0].schema.to_arrow_schema()
        for file, footer in zip(files, footers, strict=True):
            if not footer.schema.to_arrow_schema().equals(schema):
                msg = (
                    f"scores {str(path)!r}: {file.name!r} has other columns than "
                    f"{files[0].name!r}; expected files of one run of scoring"
                )
                raise ConfigError(msg)
        num_rows = sum(footer.num_rows for footer in footers)
        if not num_rows:
            msg = f"scores {str(path)!r} have no examples"
            raise ConfigError(msg)
        manifest = read_manifest(path, footers, num_rows)
        check_schema(path, schema)
        return cls(path, manifest, num_rows, schema, tuple(files))

    @property
    def pool_fingerprint(self) -> str | None:
        """Of the pool that was scored, where that is known."""
        if self.manifest is None:
            return subset_pool(self.schema.metadata)
        return self.manifest["pool_fingerprint"]

    @property
    def model_fingerprint(self) -> str | None:
        """Of the model that scored it, where that is known."""
        return None if self.manifest is None else self.manifest["model_fingerprint"]

    @property
    def columns(self) -> pa.Schema:
        """Columns of the pool that were copied beside the outputs."""
        names: list[str] = (self.manifest or {}).get("columns", [])
        return pa.schema([self.schema.field(name) for name in names])

    @property
    def outputs(self) -> frozenset[str]:
        """Names of what there is; ``embeddings`` for the columns of pairs."""
        names = frozenset(self.schema.names) - {_ID, *self.columns.names}
        if names.isdisjoint(_PAIRS):
            return names
        return names - _PAIRS | {_EMBEDDINGS}

    @property
    def numbers(self) -> list[str]:
        """Names of the outputs that are one number per example, sorted."""
        return sorted(
            name
            for name in self.outputs - {_EMBEDDINGS}
            if _is_number(self.schema.field(name).type)
        )

    def ids(self) -> Int64[np.ndarray, " N"]:
        """Returns the ids, ascending.

        Raises:
            ConfigError: One is there twice, null, or below 0.
            StorageError: A file cannot be read.
        """
        ids = self._raw_ids()
        if not np.all(ids[1:] > ids[:-1]):
            ids.sort()
        if ids[0] < 0:
            msg = (
                f"scores {str(self.path)!r}: example_id {ids[0]}; expected positions "
                "in a pool, from 0 on"
            )
            raise ConfigError(msg)
        repeated = ids[1:][ids[1:] == ids[:-1]]
        if len(repeated):
            msg = (
                f"scores {str(self.path)!r}: example {repeated[0]} is there more than "
                "once; expected one row per example"
            )
            raise ConfigError(msg)
        return ids

    @property
    def num_bytes(self) -> int:
        """How large the files are."""
        return sum(file.stat().st_size for file in self._files)

    def blocks(
        self, columns: Sequence[str], max_rows: int = _BLOCK
    ) -> Iterator[pa.RecordBatch]:
        """Yields columns, never holding more than one block of them.

        Args:
            columns: Outputs as they are stored, copied columns, ``example_id``; in the
                order of the ids where ``curator score`` wrote them.
            max_rows: Of a block.

        Raises:
            ConfigError: A file is damaged.
            StorageError: A file cannot be read.
        """
        for file in self._files:
            try:
                with pq.ParquetFile(file, page_checksum_verification=True) as reader:
                    yield from reader.iter_batches(max_rows, columns=list(columns))
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self.path, file, error) from error

    def read(self, output: str, *, scratch: Path | None = None) -> Feature:
        """Returns one output, in the order of the ids; NaN for a null.

        Args:
            output: Its name.
            scratch: A folder for rows that do not fit into memory: they are then in a
                file that is mapped, and is gone with the array.

        Raises:
            ConfigError: There is no such output, it is no numbers, or too large for
                the memory and there is no folder for it.
            StorageError: A file cannot be read.
        """
        names = _SIDES if output == _EMBEDDINGS else (output,)
        missing = [name for name in _REQUIRED if name not in self.schema.names]
        if output == _EMBEDDINGS and missing:
            msg = f"scores {str(self.path)!r} lack {', '.join(missing)} of embeddings"
            raise ConfigError(msg)
        folder = self._room(output, names, scratch)
        order = self._order()
        columns = [self._column(name, order, folder) for name in names]
        if output != _EMBEDDINGS:
            return columns[0]
        queries, targets = columns
        if queries.ndim != 2 or queries.shape != targets.shape:
            msg = (
                f"scores {str(self.path)!r}: 'queries' and 'targets' have the shapes "
                f"{queries.shape} and {targets.shape}; expected lists of one length"
            )
            raise ConfigError(msg)
        has_bias = "logit_bias" in self.schema.names
        return PairEmbeddings(
            queries=_normalise(queries),
            targets=_normalise(targets),
            logit_scale=self._constant("logit_scale", 0.0),
            logit_bias=self._constant("logit_bias", -math.inf) if has_bias else None,
        )

    def _raw_ids(self) -> Int64[np.ndarray, " N"]:
        ids = np.empty(self.num_examples, np.int64)
        for start, column in self._chunks(_ID):
            if column.null_count:
                msg = f"scores {str(self.path)!r}: {_ID!r} has nulls"
                raise ConfigError(msg)
            ids[start : start + len(column)] = column.to_numpy()
        return ids

    def _order(self) -> Int64[np.ndarray, " N"] | None:
        """Returns the order of the ids; None where the files are in it."""
        if self.manifest is not None:
            return None
        ids = self._raw_ids()
        return None if np.all(ids[1:] > ids[:-1]) else np.argsort(ids)

    def _column(
        self,
        name: str,
        order: Int64[np.ndarray, " N"] | None,
        scratch: Path | None,
    ) -> Float32[np.ndarray, "N *width"]:
        shape = self._shape(name)
        values = allocate((self.num_examples, *shape), scratch)
        place = None
        if order is not None:
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
        for start, column in self._chunks(name):
            stop = start + len(column)
            rows = slice(start, stop) if place is None else place[start:stop]
            with np.errstate(over="ignore"):  # infinite, which the policy puts aside
                values[rows] = _numbers(column, shape)
        return values

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.schema.names:
            msg = (
                f"scores {str(self.path)!r} have no {name!r}; they have "
                f"{', '.join(sorted(self.outputs)) or 'no outputs'}"
            )
            raise ConfigError(msg)
        kind = self.schema.field(name).type
        if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
            return (kind.list_size,)
        if not _is_number(kind):
            msg = (
                f"scores {str(self.path)!r}: {name!r} is {kind}; expected numbers or "
                "fixed-size lists of numbers"
            )
            raise ConfigError(msg)
        return ()

    def _room(
        self, output: str, names: Sequence[str], scratch: Path | None
    ) -> Path | None:
        """Returns where rows go: into memory (None) if they fit, or into a folder."""
        shapes = [self._shape(name) for name in names]
        num_bytes = sum(4 * self.num_examples * math.prod(shape) for shape in shapes)
        free = free_memory()
        if not any(shapes) or free is None or num_bytes * _COPIES <= free:
            return None
        if scratch is None:
            msg = (
                f"scores {str(self.path)!r}: {output!r} of {self.num_examples:,} "
                f"examples takes {num_bytes:,} bytes, and as much again while "
                f"it is worked on; {free:,} bytes of memory are free. 'curator select' "
                "can do with less: select in super-batches (super_batch_size)"
            )
            raise ConfigError(msg)
        return scratch

    def _chunks(self, name: str) -> Iterator[tuple[int, pa.Array]]:
        """Yields parts of a column, and where each starts."""
        start = 0
        for block in self.blocks([name]):
            yield start, block.column(0)
            start += len(block)

    def _constant(self, name: str, above: float) -> float:
        """Returns the one value of a column."""
        found: set[float] = set()
        for _, column in self._chunks(name):
            found.update(np.unique(_numbers(column, ())).tolist())
        if len(found) != 1 or not above < min(found) < math.inf:
            msg = (
                f"scores {str(self.path)!r}: {name!r} has {len(found)} values; "
                f"expected the model's own, one finite number above {above} in every "
                "row"
            )
            raise ConfigError(msg)
        return found.pop()


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _numbers(column: pa.Array, shape: tuple[int, ...]) -> np.ndarray:
    """Returns values, NaN for nulls, of shape (rows, *shape)."""
    present = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.drop_null()
    if shape:
        values = values.flatten()
    numbers = values.to_numpy(zero_copy_only=False).reshape(-1, *shape)
    if len(numbers) == len(column):
        return numbers
    filled = np.full((len(column), *shape), math.nan, np.float32)
    filled[present] = numbers
    return filled


def _normalise(rows: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Makes rows of length one in place, NaN where there is no such row."""
    block = max(1, (1 << 22) // max(rows.shape[1], 1))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            norms = np.linalg.norm(part, axis=1, keepdims=True)
            part /= norms
        part[~np.isfinite(norms[:, 0])] = math.nan  # infinite ones would come out as 0
    return rows
