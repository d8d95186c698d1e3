"""Outputs of a fixed model that were computed before, by example id.

Shapes: ``N`` rows of the table, ``B`` ids.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Int64

from curator.errors import ConfigError, StorageError
from curator.types import Feature, PairEmbeddings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScoreTable"]

_ID = "example_id"
_REQUIRED = frozenset({"queries", "targets", "logit_scale"})
_PAIRS = _REQUIRED | {"logit_bias"}
_MAX_NAMED = 5


class ScoreTable:
    """Parquet with a row per example: ``example_id``, and outputs beside it.

    One file, or a folder of them with the same columns, such as ``curator score``
    writes. Those say how many examples they are of, so that a folder of which some are
    missing is told from a whole one.

    Each other column is one output, under its own name: numbers, or fixed-size lists of
    numbers. Embeddings are the columns ``queries`` and ``targets`` (normalised here),
    ``logit_scale`` and perhaps ``logit_bias``, the same number in every row; together
    they are the output ``embeddings``. A null is NaN. With a column ``loss`` this is
    the irreducible-loss table of RHO-LOSS (Mindermann et al. 2022, arXiv 2206.07137).

    The table is held in memory: 8 bytes for an id and 4 for each number.

    What a folder says of itself may name columns that were copied from the pool beside
    the scores (``curator score --columns``); they are no outputs.

    Attributes:
        MANIFEST_KEY: Under this key a file's metadata says, as JSON, of what it is a
            part; the same text in all parts.
    """

    MANIFEST_KEY: ClassVar[bytes] = b"curator.scores"

    def __init__(self, path: str | Path) -> None:
        """Reads the file or the folder.

        Raises:
            ConfigError: It is no Parquet, lacks a column, has a column of another type,
                or an id twice; or its files do not make a whole.
            StorageError: It cannot be read.
        """
        path = Path(path)
        self._where = f"table {str(path)!r}"
        table, self._fingerprint = (
            self._read_folder(path)
            if path.is_dir()
            else self._read_file(path, self._where)
        )
        self._manifest = _manifest(table.schema)
        ids = self._read_ids(table)
        order = np.argsort(ids, kind="stable")
        self._ids: Int64[np.ndarray, " N"] = ids[order]
        repeated = np.unique(self._ids[1:][np.diff(self._ids) == 0]).tolist()
        if repeated:
            more = ", ..." if len(repeated) > _MAX_NAMED else ""
            named = ", ".join(map(str, repeated[:_MAX_NAMED]))
            msg = (
                f"{self._where}: {len(repeated)} ids are in {_ID!r} more than once "
                f"({named}{more}); expected one row per example"
            )
            raise ConfigError(msg)
        columns = {
            name: self._read_numbers(table, name)[order]
            for name in table.schema.names
            if name != _ID
        }
        self._features: dict[str, Feature] = {
            name: values for name, values in columns.items() if name not in _PAIRS
        }
        if not _PAIRS.isdisjoint(columns):
            self._features["embeddings"] = self._embeddings(columns)

    @property
    def fingerprint(self) -> str:
        """Digest of the file or the files."""
        return self._fingerprint

    @property
    def outputs(self) -> frozenset[str]:
        """Names of what it has."""
        return frozenset(self._features)

    @property
    def manifest(self) -> Mapping[str, Any] | None:
        """What ``curator score`` says of its scores; None for those of others."""
        return self._manifest

    def num_missing(self, num_examples: int) -> int:
        """Returns how many examples of a pool of some size have no row."""
        start, stop = np.searchsorted(self._ids, [0, num_examples]).tolist()
        return num_examples - (stop - start)

    def look_up(
        self, ids: Int64[np.ndarray, " B"], outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        """Returns outputs of examples, NaN for those that have no row.

        Raises:
            ValueError: An output is not in the table.
        """
        if not outputs <= self.outputs:
            msg = (
                f"{self._where} has {', '.join(sorted(self.outputs)) or 'no outputs'}; "
                f"got {', '.join(sorted(outputs))}"
            )
            raise ValueError(msg)
        rows = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        present = self._ids[rows] == ids
        return {
            name: _rows_of(self._features[name], rows, present)
            for name in sorted(outputs)
        }

    def _read_file(self, path: Path, where: str) -> tuple[pa.Table, str]:
        """Returns a file's rows and its digest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(
                    file, lambda: hashlib.blake2b(digest_size=16)
                )
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                names = parquet.schema_arrow.names
                copied = _copied(parquet.schema_arrow)
                # Without any, all is read: a name that is there twice is found later.
                kept = [name for name in names if name not in copied]
                return parquet.read(kept if copied else None), digest.hexdigest()
        except OSError as error:
            msg = f"{where} cannot be read: {error.strerror or error}"
            raise StorageError(msg) from error
        except pa.ArrowException as error:
            msg = f"{where} is not a whole Parquet file: {error}"
            raise ConfigError(msg) from error

    def _read_folder(self, folder: Path) -> tuple[pa.Table, str]:
        """Returns the rows of all files, and the digest of them together."""
        import pyarrow as pa

        names = sorted(
            path.name
            for path in folder.glob("*.parquet")
            if not path.name.startswith((".", "_"))
        )
        if not names:
            msg = f"{self._where}: no files that end in .parquet in this folder"
            raise ConfigError(msg)
        tables: list[pa.Table] = []
        digest = hashlib.blake2b(digest_size=16)
        for name in names:
            table, fingerprint = self._read_file(
                folder / name, f"{self._where}: {name!r}"
            )
            tables.append(table)
            digest.update(bytes.fromhex(fingerprint))
        for name, table in zip(names, tables, strict=True):
            if not table.schema.equals(tables[0].schema):
                msg = (
                    f"{self._where}: {name!r} has the columns {_described(table)}, and "
                    f"{names[0]!r} has {_described(tables[0])}; expected the same"
                )
                raise ConfigError(msg)
        self._check_whole(tables)
        return pa.concat_tables(tables), digest.hexdigest()

    def _check_whole(self, tables: Sequence[pa.Table]) -> None:
        """Checks that files are of one run of ``curator score``, and all of it."""
        found = {_metadata(table).get(self.MANIFEST_KEY) for table in tables}
        if len(found) > 1:
            msg = (
                f"{self._where} has files of different runs of scoring; expected those "
                "of one: take the others out"
            )
            raise ConfigError(msg)
        manifest = _manifest(tables[0].schema)
        if manifest is None:
            return
        expected = manifest["num_examples"]
        num_rows = sum(len(table) for table in tables)
        if num_rows != expected:
            msg = (
                f"{self._where} has scores of {num_rows} of {expected} examples: it is "
                "not finished. Run the same 'curator score' again, which continues"
            )
            raise ConfigError(msg)

    def _read_ids(self, table: pa.Table) -> Int64[np.ndarray, " N"]:
        import pyarrow as pa

        names = table.schema.names
        if _ID not in names or len(set(names)) < len(names):
            msg = (
                f"{self._where} has the columns {', '.join(names) or 'none'}; expected "
                f"{_ID!r} and outputs, each once"
            )
            raise ConfigError(msg)
        column = table[_ID]
        if not pa.types.is_integer(column.type) or column.null_count:
            msg = (
                f"{self._where}: {_ID!r} is {column.type} with {column.null_count} "
                "nulls; expected integers, the examples' positions in the pool"
            )
            raise ConfigError(msg)
        if not len(column):
            msg = f"{self._where} has no rows"
            raise ConfigError(msg)
        return column.to_numpy().astype(np.int64)

    def _read_numbers(
        self, table: pa.Table, name: str
    ) -> Float32[np.ndarray, "N *width"]:
        """Returns a column as an array, with NaN where it is null."""
        import pyarrow as pa

        column = table[name]
        present = column.is_valid().to_numpy()
        values = pa.concat_arrays(
            column.drop_null().chunks or [pa.array([], column.type)]
        )
        shape: tuple[int, ...] = ()
        if pa.types.is_fixed_size_list(values.type):
            shape = (values.type.list_size,)
            values = values.flatten()
        kind = values.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            msg = (
                f"{self._where}: column {name!r} is {column.type}; expected numbers or "
                "fixed-size lists of numbers: convert it, or leave it out"
            )
            raise ConfigError(msg)
        numbers = values.to_numpy(zero_copy_only=False)
        found = np.full((len(column), *shape), math.nan, np.float32)
        with np.errstate(over="ignore"):  # infinite, which the policy puts aside
            found[present] = numbers.reshape(-1, *shape)
        return found

    def _embeddings(self, columns: Mapping[str, np.ndarray]) -> PairEmbeddings:
        missing = sorted(_REQUIRED - columns.keys())
        if missing:
            msg = (
                f"{self._where} has {', '.join(sorted(_PAIRS & columns.keys()))} and "
                f"lacks {', '.join(missing)}; embeddings need all of "
                f"{', '.join(sorted(_REQUIRED))}"
            )
            raise ConfigError(msg)
        queries, targets = columns["queries"], columns["targets"]
        if queries.ndim != 2 or queries.shape != targets.shape:
            msg = (
                f"{self._where}: 'queries' and 'targets' have the shapes "
                f"{queries.shape} and {targets.shape}; expected lists of one length"
            )
            raise ConfigError(msg)
        return PairEmbeddings(
            queries=_normalised(queries),
            targets=_normalised(targets),
            logit_scale=self._constant(columns, "logit_scale", 0.0),
            logit_bias=self._constant(columns, "logit_bias", -math.inf)
            if "logit_bias" in columns
            else None,
        )

    def _constant(
        self, columns: Mapping[str, np.ndarray], name: str, above: float
    ) -> float:
        """Returns the one value of a column."""
        found = np.unique(columns[name]).tolist()
        if columns[name].ndim != 1 or len(found) > 1 or not above < found[0] < math.inf:
            msg = (
                f"{self._where}: column {name!r} has {len(found)} values, "
                f"{found[0]} the first; expected the model's own, one finite number "
                f"above {above} in every row"
            )
            raise ConfigError(msg)
        return found[0]


def _metadata(table: pa.Table) -> dict[bytes, bytes]:
    return table.schema.metadata or {}


def _manifest(schema: pa.Schema) -> Mapping[str, Any] | None:
    """Returns what a file says that it is a part of."""
    metadata: dict[bytes, bytes] = schema.metadata or {}
    text = metadata.get(ScoreTable.MANIFEST_KEY)
    return None if text is None else json.loads(text)


def _copied(schema: pa.Schema) -> list[str]:
    """Returns the columns that are no scores, but were copied from the pool."""
    return list((_manifest(schema) or {}).get("columns", ()))


def _described(table: pa.Table) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


def _rows_of(
    feature: Feature, rows: Int64[np.ndarray, " B"], present: Bool[np.ndarray, " B"]
) -> Feature:
    if isinstance(feature, PairEmbeddings):
        return dataclasses.replace(
            feature,
            queries=_taken(feature.queries, rows, present),
            targets=_taken(feature.targets, rows, present),
        )
    return _taken(feature, rows, present)


def _taken(
    values: np.ndarray, rows: Int64[np.ndarray, " B"], present: Bool[np.ndarray, " B"]
) -> np.ndarray:
    found = values[rows]
    found[~present] = math.nan
    return found


def _normalised(vectors: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Returns rows of length one, NaN where there is no such row."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / norms
    unit[~np.isfinite(norms[:, 0])] = math.nan  # infinite ones would come out as 0
    return unit
