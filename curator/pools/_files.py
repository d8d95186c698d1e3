"""Which files make up a pool, and whether they fit together."""

# pyarrow ships no types: what comes out of it is Unknown to pyright.
# pyright: basic

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curator.errors import PoolError

__all__ = ["check_same_schema", "find_files", "unreadable"]


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
                f"{path}: no files that end in {endings} in this folder{other}. Name a "
                "glob to take other files, such as 'folder/part-*' or 'folder/**/*.arrow'"
            )
            raise PoolError(msg)
    else:
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207
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
    msg = f"{file}: not {expected}, or damaged: {exc}. {start}, {file.stat().st_size} bytes"
    return PoolError(msg)


def check_same_schema(
    first_file: Path, first: pa.Schema, file: Path, schema: pa.Schema
) -> None:
    """Checks that two files have the same columns, whatever their metadata.

    Raises:
        PoolError: They have not; the message names the files and the first column that
            differs.
    """
    if schema.equals(first):
        return
    for name in [*first.names, *schema.names]:
        if name not in schema.names or name not in first.names:
            has, lacks = (
                (first_file, file) if name in first.names else (file, first_file)
            )
            msg = f"the files of a pool need the same columns: {has} has {name!r}, {lacks} not"
            raise PoolError(msg)
        if not schema.field(name).equals(first.field(name)):
            msg = (
                "the files of a pool need the same columns: in "
                f"{first_file}: {_describe(first.field(name))}; in "
                f"{file}: {_describe(schema.field(name))}"
            )
            raise PoolError(msg)
    msg = (
        f"the files of a pool need the same columns in one order: {first_file} has "
        f"{', '.join(first.names)}; {file} has {', '.join(schema.names)}"
    )
    raise PoolError(msg)


def _describe(field: pa.Field) -> str:
    return f"{field.name!r} is {field.type}{'' if field.nullable else ' not null'}"
