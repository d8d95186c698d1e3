"""Pools of JSON lines: decoded once into an Arrow file that is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping, Sequence
from itertools import accumulate
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
_SPACE = b" \t\r"  # what JSON calls white space, but for the end of the line
_MAX_DEPTH = 64  # Arrow files nest no deeper, and readers of JSON run out of stack
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})
# How pyarrow's messages end; it counts from 0, and empty lines are no rows.
_IN_ROW = re.compile(r"\.? in row (\d+)$")


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

    decoded = derive(folder, "jsonl.arrow", files, decode, place=path, num_readings=2)
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

    def infer(self) -> list[tuple[str, pa.DataType]]:
        """Returns the columns, with the types that these lines give them.

        Raises:
            PoolError: A line is not one JSON object, or not as the others are.
        """
        num_lines = _num_lines(self.data)
        if num_lines is None:
            raise self.error({}, "a line is no object")
        if any(
            _may_be_deep(line) and _depth(line) > _MAX_DEPTH
            for line in self.data.split(b"\n")
        ):
            raise self.error({}, "a line has lists or objects too deep")
        # Not validated: a list that begins with nulls has too few values in it as long
        # as pyarrow does not know their type. The type that it finds is right.
        table = self._read(None)
        if table.num_rows != num_lines:
            raise self.error({}, "a line has several objects")
        try:
            return [(field.name, _plain(field.type)) for field in table.schema]
        except UnicodeDecodeError as error:  # of a key
            raise self.error({}, str(error)) from error

    def parse(self, schema: pa.Schema) -> pa.Table:
        """Returns the rows.

        Raises:
            PoolError: A line has text that is no UTF-8.
        """
        table = self._read(schema)
        columns = [
            pa.chunked_array(map(_whole, column.chunks), column.type)
            for column in table.columns
        ]
        table = pa.Table.from_arrays(columns, schema=schema)
        try:
            table.validate(full=True)  # or text that is no UTF-8 would pass
        except pa.ArrowException as error:
            raise self.error({}, str(error)) from error
        return table

    def _read(self, schema: pa.Schema | None) -> pa.Table:
        block_size = len(self.data) + 1
        if block_size > _MAX_BLOCK_BYTES:
            msg = f"{self.file}: line {self.line}: longer than 2 GB; cut it up"
            raise PoolError(msg)
        try:
            return _json.read_json(
                pa.BufferReader(self.data),
                read_options=_json.ReadOptions(
                    use_threads=False, block_size=block_size
                ),
                parse_options=_json.ParseOptions(explicit_schema=schema),
            )
        except pa.ArrowException as error:
            raise self.error({}, str(error)) from error

    def error(self, kinds: Mapping[str, str], otherwise: str) -> PoolError:
        """Returns the error that names the first line that is wrong.

        Args:
            kinds: What the columns have been so far.
            otherwise: What to say where every line is right by itself.
        """
        seen = {path: (kind, "before") for path, kind in kinds.items()}
        in_row = _IN_ROW.search(otherwise)
        row = 0
        at = f"from line {self.line}"
        for number, line in enumerate(self.data.split(b"\n"), self.line):
            if not line.strip(_SPACE):
                continue
            if problem := _problem(line, number, seen):
                return PoolError(f"{self.file}: line {number}: {problem}")
            if in_row and row == int(in_row[1]):
                at = f"line {number}"
            row += 1
        if in_row:
            otherwise = otherwise[: in_row.start()]
        return PoolError(f"{self.file}: {at}: {otherwise}")


def _num_lines(data: bytes) -> int | None:
    """Returns how many lines there are; None if one is not ``{...}``.

    pyarrow minds neither an object on several lines nor several on one. The first are
    told here, for no such object has only lines that start and end like this. The
    second have more rows than lines.
    """
    data = data.strip(_SPACE + b"\n")
    if not (data[:1] == b"{" and data[-1:] == b"}"):
        return None
    num_breaks = data.count(b"\n")
    if num_breaks == data.count(b"}\n{") + data.count(b"}\r\n{"):
        return num_breaks + 1
    # Slower, for empty lines and other white space.
    lines = [text for line in data.split(b"\n") if (text := line.strip(_SPACE))]
    if all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        return len(lines)
    return None


def _may_be_deep(line: bytes) -> bool:
    return line.count(b"[") + line.count(b"{") > _MAX_DEPTH


def _depth(line: bytes) -> int:
    """Returns how deep the lists and objects of a line lie in each other."""
    brackets = _STRING.sub(b"", line).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if b in b"[{" else -1 for b in brackets), default=0)


def _problem(line: bytes, number: int, seen: dict[str, tuple[str, str]]) -> str | None:
    """Returns what is wrong with a line, by itself or beside those before it."""
    if _may_be_deep(line) and (depth := _depth(line)) > _MAX_DEPTH:
        return (
            f"lists and objects in each other, {depth} deep; at most {_MAX_DEPTH} can "
            "be kept: write them flatter, or as a string"
        )
    try:
        value: object = json.loads(line.decode(), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return (
            f"not JSON: {error.msg} at character {error.pos + 1}; "
            "each line is one whole object"
        )
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
            num_rows += 1
            for name, dtype in block.infer():
                before = columns.get(name, pa.null())
                merged = _merged(before, dtype)
                if merged is None:
                    otherwise = f"{name!r} is {dtype}; before it is {before}"
                    raise block.error(_kinds_of_types(columns, ""), otherwise)
                columns[name] = merged
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


def _whole(array: pa.Array) -> pa.Array:
    """Returns an array with as many nulls as its lists say that they have.

    pyarrow's reader has too few values in lists of nothing but nulls.
    """
    dtype = array.type
    if pa.types.is_list(dtype) and pa.types.is_null(dtype.value_type):
        children = [pa.nulls(array.offsets[-1].as_py())]
    elif pa.types.is_list(dtype):
        children = [_whole(array.values)]
    elif pa.types.is_struct(dtype):
        children = [_whole(array.field(i)) for i in range(dtype.num_fields)]
    else:
        return array
    buffers = array.buffers()[: dtype.num_buffers]  # those of the children follow
    return pa.Array.from_buffers(dtype, len(array), buffers, children=children)


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
