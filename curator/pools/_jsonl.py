"""Pools of JSON lines: decoded once into an Arrow file that is kept."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pyarrow import json as arrow_json

from curator.errors import PoolError
from curator.pools._arrow import ArrowPool
from curator.pools._derived import cache_folder, derive, local_copies
from curator.pools._files import PoolFile, find_files
from curator.pools._packed import unpacked
from curator.progress import Progress

__all__ = ["jsonl_pool"]

_json: Any = arrow_json  # the module has no types
_BLOCK_BYTES = 8 << 20
_MAX_BLOCK_BYTES = (1 << 31) - 2  # pyarrow's own
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def jsonl_pool(path: str | Path, *, fingerprint_cache: Path | None = None) -> ArrowPool:
    """Returns the pool of the objects in files of JSON lines, packed or not.

    They are decoded once, into an Arrow file beside the cache of digests. Types are
    those of the values: whole numbers, floats, booleans, strings, lists and objects; a
    column with both kinds of numbers has floats. What looks like a time stays a string.
    A key that a line does not have is null there.

    Args:
        path: A file, a folder (its ``.jsonl`` and ``.ndjson`` files, also ``.gz`` and
            ``.zst``) or a glob.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no such file, one cannot be read, a line is no JSON object,
            or a column has values of different types; the message names the line.
    """
    folder = cache_folder(fingerprint_cache)
    files = local_copies(find_files(path, "jsonl"), folder)

    def decode(target: Path, progress: Progress) -> None:
        _write(files, target, _infer(files, progress), progress)

    decoded = derive(folder, "jsonl.arrow", files, decode, num_readings=2)
    return ArrowPool.of_copy(decoded, files, fingerprint_cache)


class _Block:
    """Some lines of a file, whole ones.

    Attributes:
        line: The number of the first.
    """

    def __init__(self, file: PoolFile, line: int, data: bytes) -> None:
        self.file = file
        self.line = line
        self.data = data

    def parse(self, schema: pa.Schema | None) -> pa.Table:
        """Returns the rows.

        Raises:
            PoolError: A line is not JSON, or not as the others are.
        """
        block_size = len(self.data) + 1
        if block_size > _MAX_BLOCK_BYTES:
            msg = f"{self.file}: line {self.line}: longer than 2 GB; cut it up"
            raise PoolError(msg)
        try:
            table: pa.Table = _json.read_json(
                pa.BufferReader(self.data),
                read_options=_json.ReadOptions(
                    use_threads=False, block_size=block_size
                ),
                parse_options=_json.ParseOptions(explicit_schema=schema),
            )
            table.validate(full=True)  # or text that is no UTF-8 would pass
        except pa.ArrowException as error:
            raise self.error({}, str(error)) from error
        return table

    def error(self, kinds: Mapping[str, str], otherwise: str) -> PoolError:
        """Returns the error that names the first line that is wrong.

        Args:
            kinds: What the columns have been so far.
            otherwise: What to say where every line is right by itself.
        """
        seen = {path: (kind, "before") for path, kind in kinds.items()}
        for number, line in enumerate(self.data.split(b"\n"), self.line):
            problem = _problem(line, number, seen) if line.strip() else None
            if problem:
                return PoolError(f"{self.file}: line {number}: {problem}")
        return PoolError(f"{self.file}: from line {self.line}: {otherwise}")


def _problem(line: bytes, number: int, seen: dict[str, tuple[str, str]]) -> str | None:
    """Returns what is wrong with a line, by itself or beside those before it."""
    try:
        value: object = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    except ValueError as error:  # no UTF-8, or a key that is there twice
        return f"not JSON: {error}"
    if not isinstance(value, dict):
        return f"an object like {{'key': value}} is expected; got {_kind(value)}"
    for path, kind in _kinds(cast("dict[str, object]", value), ""):
        before, at = seen.setdefault(path, (kind, f"in line {number}"))
        if before != kind:
            return f"{path!r} is {kind}; {at} it is {before}"
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            msg = f"{key!r} is there twice"
            raise ValueError(msg)
    return dict(pairs)


_KINDS: dict[type[object], str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS[type(value)]


def _kinds(items: Mapping[str, object], prefix: str) -> Generator[tuple[str, str]]:
    """Yields path and kind of all that is in an object but nulls."""
    for key, item in items.items():
        path = f"{prefix}{key}"
        if item is not None:
            yield path, _kind(item)
        if isinstance(item, dict):
            yield from _kinds(cast("dict[str, object]", item), f"{path}.")
        elif isinstance(item, list):
            for entry in cast("list[object]", item):
                yield from _kinds({"[]": entry}, path)


def _kinds_of_types(types: Mapping[str, pa.DataType], prefix: str) -> dict[str, str]:
    """Returns the same of the types of columns."""
    kinds: dict[str, str] = {}
    for key, dtype in types.items():
        path = f"{prefix}{key}"
        if pa.types.is_struct(dtype):
            kinds[path] = "an object"
            fields = {f.name: f.type for f in map(dtype.field, range(dtype.num_fields))}
            kinds |= _kinds_of_types(fields, f"{path}.")
        elif pa.types.is_list(dtype):
            kinds[path] = "a list"
            kinds |= _kinds_of_types({"[]": dtype.value_type}, path)
        elif pa.types.is_boolean(dtype):
            kinds[path] = "a boolean"
        elif pa.types.is_string(dtype):
            kinds[path] = "a string"
        elif not pa.types.is_null(dtype):
            kinds[path] = "a number"
    return kinds


def _blocks(file: PoolFile, progress: Progress) -> Generator[_Block]:
    """Yields a file in blocks of whole lines."""
    with unpacked(file, progress) as source:
        line, parts = 1, list[bytes]()
        while block := source.read(_BLOCK_BYTES):
            if line == 1 and not parts:
                block = block.removeprefix(_BYTE_ORDER_MARK)
            end = block.rfind(b"\n") + 1
            if end:
                data = b"".join([*parts, block[:end]])
                if data.strip():
                    yield _Block(file, line, data)
                line += data.count(b"\n")
                parts = []
            parts.append(block[end:])
        data = b"".join(parts)
        if data.strip():
            yield _Block(file, line, data)


def _infer(files: Sequence[PoolFile], progress: Progress) -> pa.Schema:
    """Returns the columns of all lines of all files."""
    columns: dict[str, pa.DataType] = {}
    num_rows = 0
    for file in files:
        for block in _blocks(file, progress):
            table = block.parse(None)
            num_rows += 1
            for field in table.schema:
                before = columns.get(field.name, pa.null())
                merged = _merged(before, _plain(field.type))
                if merged is None:
                    otherwise = f"{field.name!r} is {field.type}; before it is {before}"
                    raise block.error(_kinds_of_types(columns, ""), otherwise)
                columns[field.name] = merged
    if not num_rows:
        msg = f"{files[0]}: a pool has at least one example; the files have no lines"
        raise PoolError(msg)
    if not columns:
        msg = f"{files[0]}: the lines have no keys; a pool needs a column"
        raise PoolError(msg)
    return pa.schema(list(columns.items()))


def _write(
    files: Sequence[PoolFile], target: Path, schema: pa.Schema, progress: Progress
) -> None:
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for file in files:
            for block in _blocks(file, progress):
                # The columns of explicit_schema come first, and there are no others.
                out.write_table(block.parse(schema).combine_chunks())


def _plain(dtype: pa.DataType) -> pa.DataType:
    """Returns an inferred type, with the times that it sees in strings as strings."""
    types = pa.types
    if types.is_timestamp(dtype):
        return pa.string()
    if types.is_list(dtype):
        return pa.list_(_plain(dtype.value_type))
    if types.is_struct(dtype):
        fields = [dtype.field(i) for i in range(dtype.num_fields)]
        return pa.struct([(field.name, _plain(field.type)) for field in fields])
    return dtype


def _merged(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Returns the type of values of either type, None where there is none."""
    types = pa.types
    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if types.is_list(a) and types.is_list(b):
        merged = _merged(a.value_type, b.value_type)
        return None if merged is None else pa.list_(merged)
    if types.is_struct(a) and types.is_struct(b):
        fields = {a.field(i).name: a.field(i).type for i in range(a.num_fields)}
        for i in range(b.num_fields):
            name, dtype = b.field(i).name, b.field(i).type
            merged = _merged(fields.get(name, pa.null()), dtype)
            if merged is None:
                return None
            fields[name] = merged
        return pa.struct(list(fields.items()))
    return None
