"""The Parquet files that scores lie in: which there are, and what they say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curator.errors import ConfigError, StorageError
from curator.models import ScoreTable

__all__ = ["check_schema", "find_files", "read_footer", "read_manifest", "unreadable"]

_ID = "example_id"


def find_files(path: Path) -> list[Path]:
    if not path.exists():
        msg = f"no scores at {str(path)!r}: no such file or folder"
        raise ConfigError(msg)
    if not path.is_dir():
        return [path]
    files = sorted(
        file for file in path.glob("*.parquet") if not file.name.startswith((".", "_"))
    )
    if not files:
        msg = (
            f"no scores in {str(path)!r}: no files that end in .parquet. 'curator "
            "score' writes such a folder"
        )
        raise ConfigError(msg)
    return files


def read_footer(path: Path, file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, file, error) from error


def unreadable(path: Path, file: Path, error: Exception) -> Exception:
    where = f"scores {str(path)!r}: {file.name!r}"
    if isinstance(error, OSError) and error.errno:
        return StorageError(f"{where} cannot be read: {error.strerror or error}")
    return ConfigError(f"{where} is not a whole Parquet file: {error}")


def read_manifest(
    path: Path, footers: list[pq.FileMetaData], num_rows: int
) -> dict[str, Any] | None:
    """Returns what all files say they are of; None where they say nothing."""
    found = {_metadata(footer).get(ScoreTable.MANIFEST_KEY) for footer in footers}
    if len(found) > 1:
        msg = (
            f"scores {str(path)!r} has files of different runs of scoring; expected "
            "those of one: take the others out"
        )
        raise ConfigError(msg)
    (text,) = found
    if text is None:
        return None
    manifest = json.loads(text)
    if num_rows != manifest["num_examples"]:
        msg = (
            f"scores {str(path)!r} are of {num_rows} of {manifest['num_examples']} "
            "examples: scoring is not finished. Run the same 'curator score' again, "
            "which continues"
        )
        raise ConfigError(msg)
    return manifest


def _metadata(footer: pq.FileMetaData) -> dict[bytes, bytes]:
    return footer.metadata or {}


def check_schema(path: Path, schema: pa.Schema) -> None:
    names = schema.names
    is_id = _ID in names and pa.types.is_integer(schema.field(_ID).type)
    if not is_id or len(set(names)) < len(names):
        msg = (
            f"scores {str(path)!r} have the columns {', '.join(names) or 'none'}; "
            f"expected {_ID!r}, integers, and outputs, each once"
        )
        raise ConfigError(msg)
