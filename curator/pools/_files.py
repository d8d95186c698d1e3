"""Which files make up a pool, and whether they fit together."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curator.errors import PoolError
from curator.pools._take import plain_schema

__all__ = ["common_schema", "find_files", "unreadable"]


def find_files(path: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files of a pool, sorted by name.

    Args:
        path: A file, taken as it is; a folder, of which the files that end in one of
            ``suffixes`` are taken; or a glob (``**`` for any depth). Names that start
            with ``.`` or ``_`` are left out of a folder and of a glob.
        suffixes: How the names of such files end.

    Raises:
        PoolError: There is no such file.
    """
    path = Path(path)
    if path.is_file():
        return [path.absolute()]
    endings = ", ".join(suffixes)
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.is_file())
        found = [
            path / n for n in names if _is_visible(n) and n.endswith(tuple(suffixes))
        ]
        if not found:
            other = f"; it has {', '.join(names[:3])}" if names else ""
            msg = (
                f"{path}: no files that end in {endings} in this folder{other}. A glob "
                "takes other files: 'folder/part-*', 'folder/**/*.arrow'"
            )
            raise PoolError(msg)
    else:
        matches = glob.glob(str(path), recursive=True)
        paths = [Path(match) for match in sorted(matches)]
        found = [p for p in paths if _is_visible(p.name) and p.is_file()]
        if not found:
            msg = f"{path}: no such file or folder, and no file matches it as a glob"
            raise PoolError(msg)
    return [file.absolute() for file in found]


def _is_visible(name: str) -> bool:
    """Tells data from what tools leave beside it (``.crc``, ``_SUCCESS``)."""
    return not name.startswith((".", "_"))


def unreadable(file: Path, expected: str, exc: Exception) -> PoolError:
    """Returns the error for a file that is not what it should be."""
    try:
        with file.open("rb") as source:
            start = f"It starts with {source.read(6)!r}"
    except OSError:
        start = "It cannot be opened"
    return PoolError(f"{file}: not {expected}, or damaged: {exc}. {start}")


def common_schema(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Returns the plain schema of files that have the same columns.

    Metadata and dictionaries may differ, see :func:`plain_schema`.

    Raises:
        PoolError: The columns differ; the message names two files and the first column
            that differs.
    """
    plain: list[pa.Schema] = []
    for file, schema in zip(files, schemas, strict=True):
        try:
            plain.append(plain_schema(schema))
        except PoolError as exc:
            msg = f"{file}: {exc}"
            raise PoolError(msg) from exc
    for file, schema in zip(files, plain, strict=True):
        if not schema.equals(plain[0]):
            difference = _difference(files[0], plain[0], file, schema)
            msg = f"the files of a pool need the same columns: {difference}"
            raise PoolError(msg)
    return plain[0]


def _difference(a: Path, schema_a: pa.Schema, b: Path, schema_b: pa.Schema) -> str:
    for name in [*schema_a.names, *schema_b.names]:
        if name not in schema_b.names:
            return f"{a} has {name!r}, {b} has not"
        if name not in schema_a.names:
            return f"{b} has {name!r}, {a} has not"
        field_a, field_b = schema_a.field(name), schema_b.field(name)
        if not field_a.equals(field_b):
            types = f"{_describe(field_a)} in {a} and {_describe(field_b)} in {b}"
            return f"{name!r} is {types}"
    return (
        f"{a} has them in the order {', '.join(schema_a.names)}, "
        f"{b} in the order {', '.join(schema_b.names)}"
    )


def _describe(field: pa.Field) -> str:
    return str(field.type) if field.nullable else f"{field.type} not null"
