import gzip
import json

import numpy as np
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import _jsonl as jsonl
from curator.pools import open_pool


@pytest.fixture
def pool_of(tmp_path):
    """Returns a function of the bytes of files that opens their pool."""

    def make(*contents, name="jsonl"):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for i, content in enumerate(contents):
            (folder / f"{i}.{name}").write_bytes(content)
        return open_pool("jsonl", folder, fingerprint_cache=tmp_path / "state" / "f")

    return make


def rows(pool):
    return pool.take(np.arange(pool.num_examples)).to_pylist()


def test_keys_that_a_line_lacks_are_null(pool_of):
    pool = pool_of(b'{"a": 1}\n\n{"b": "x", "a": null}\n  \n{"c": [true]}')

    assert pool.schema.equals(
        pa.schema([("a", "int64"), ("b", "string"), ("c", pa.list_(pa.bool_()))])
    )
    assert rows(pool) == [
        {"a": 1, "b": None, "c": None},
        {"a": None, "b": "x", "c": None},
        {"a": None, "b": None, "c": [True]},
    ]


def test_types_are_those_of_all_lines_of_all_files(pool_of, monkeypatch):
    monkeypatch.setattr(jsonl, "_BLOCK_BYTES", 16)
    pool = pool_of(
        b'{"n": null, "s": {"a": []}}\n{"n": 1, "s": {}}\n{"t": "2020-01-01"}\n',
        b'{"s": {"a": ["x"], "b": 2}}\n{"n": 2.5}\n{"t": "later"}',
    )

    struct = pa.struct([("a", pa.list_(pa.string())), ("b", pa.int64())])
    assert dict(zip(pool.schema.names, pool.schema.types, strict=True)) == {
        "n": pa.float64(),
        "s": struct,
        "t": pa.string(),
    }
    assert [row["n"] for row in rows(pool)] == [None, 1.0, None, None, 2.5, None]
    assert rows(pool)[3]["s"] == {"a": ["x"], "b": 2}


def test_what_looks_like_a_time_stays_a_string(pool_of):
    pool = pool_of(b'{"t": "2020-01-01", "l": ["2020-01-01 10:00:00"]}\n')

    assert rows(pool) == [{"t": "2020-01-01", "l": ["2020-01-01 10:00:00"]}]


def test_lines_longer_than_what_is_read_at_once_are_whole(pool_of, monkeypatch):
    monkeypatch.setattr(jsonl, "_BLOCK_BYTES", 7)
    lines = [{"a": "é" * i, "b": i} for i in range(30)]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)

    assert rows(pool_of(b"\xef\xbb\xbf" + text.encode())) == lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a":', r"0\.jsonl: line 2: not JSON: .* at character 6"),
        (b"\n\nword\n", r"0\.jsonl: line 3: not JSON: Expecting value at character 1"),
        (b'{"a": 1}\n[1]', r"line 2: an object like .* is expected; got a list"),
        (b'{"a": 1, "a": 2}', r"line 1: not JSON: 'a' is there twice"),
        (b'{"a": "\xff"}', r"line 1: not JSON: 'utf-8' codec can't decode"),
        (
            b'{"a": 1}\n\n{"a": "x"}\n',
            r"line 3: 'a' is a string; in line 1 it is a num",
        ),
        (b'{"a": [1, "x"]}', r"line 1: 'a\[\]' is a string; in line 1 it is a number"),
        (
            b'{"a": {"b": 1}}\n{"a": {"b": true}}\n',
            r"line 2: 'a\.b' is a boolean; in l",
        ),
        (b'{"\xe9": 1}', r"line 1: not JSON: 'utf-8' codec can't decode byte 0xe9"),
        (b'{"a": 1}\n{"a": {"\xe9": 1}}', r"line 2: not JSON: 'utf-8' codec can't"),
        (b'{"a": "\xed\xa0\x80"}', r"line 1: not JSON: 'utf-8' codec can't decode"),
        (b'{"a": 1}{"a": 2}\n', r"line 1: not JSON: Extra data at character 9; each"),
        (b'{"a": 1} {"a": 2}\n\n', r"line 1: not JSON: Extra data at character 10"),
        (b'{"a": 0}{"a": 1}\n{"a": 2,\n"b": 5}\n', r"line 1: not JSON: Extra data"),
        (b'{"a": 2,\n"b": 5}\n', r"line 1: not JSON: .* at character 9; each line is"),
        (b'{"a": 1}\r{"a": 2}\r', r"line 1: not JSON: Extra data at character 10"),
        (b'{"a": 1}\n\x0c\n', r"line 2: not JSON: Expecting value at character 1"),
        (
            b'{"a": "x"}\n\n' * 5000 + b'{"a": "\\ud800"}\n{"a": ""}',
            r"l: line 10001: JSON parse error: The surrogate pair in string is inv",
        ),
        (
            b'{"a": 1}\n\n{"a": 1e999}\n',
            r"0\.jsonl: line 3: JSON parse error: Number too big to be stored in do",
        ),
        (b"", r"0\.jsonl: a pool has at least one example; the files have no lines"),
        (b"\n \n", r"the files have no lines"),
        (b"{}\n{}\n", r"0\.jsonl: the lines have no keys"),
    ],
)
def test_wrong_line_is_named(pool_of, content, message):
    with pytest.raises(PoolError, match=message):
        pool_of(content)


def test_types_that_differ_far_apart_name_the_line(pool_of, monkeypatch):
    monkeypatch.setattr(jsonl, "_BLOCK_BYTES", 16)
    first = b'{"a": [{"b": 1}], "c": "x", "d": true}\n' * 5

    with pytest.raises(PoolError, match=r"1\.jsonl: line 2: 'a' is a string; before i"):
        pool_of(first, b'{"c": "y"}\n{"a": "x"}\n')
    with pytest.raises(PoolError, match=r"1\.jsonl: line 1: 'a\[\]\.b' is a string; b"):
        pool_of(first, b'{"a": [{"b": "x"}]}\n')
    with pytest.raises(PoolError, match=r"1\.jsonl: line 1: 'd' is an object; before"):
        pool_of(first, b'{"d": {}}\n')


def test_packed_file_that_is_cut_short_is_told(pool_of):
    packed = gzip.compress(b'{"a": 1}\n' * 1000)

    with pytest.raises(PoolError, match=r"0\.jsonl\.gz: cannot be read: Truncated"):
        pool_of(packed[:-4], name="jsonl.gz")


def test_packing_is_that_of_the_bytes_not_of_the_name(pool_of):
    assert rows(pool_of(gzip.compress(b'{"a": 1}\n'))) == [{"a": 1}]


@pytest.mark.parametrize(
    "lists",
    [
        [[None, "x"]],
        [[None, 1]],
        [[None, 1.5], [None, None, 2]],
        [[None, "2020-01-01"]],
        [[None, {"b": 1}]],
        [[None, None, None], ["y"]],
        [[None, [None, [None, True]]]],
        [[None, None, None], [], None],
        [[[None, None], None, []]],
        [{"b": [None, None, "x"]}, {"b": [None, None]}],
        [{"b": [None, None]}],
        [[{"b": [None, None]}, None]],
    ],
)
def test_lists_may_begin_with_nulls(pool_of, lists):
    text = "\n".join(json.dumps({"a": value}) for value in lists)

    assert [row["a"] for row in rows(pool_of(text.encode()))] == lists


def test_every_value_is_that_of_json(pool_of, monkeypatch):
    rng = np.random.default_rng(7)
    for _ in range(20):
        kind = {name: random_kind(rng) for name in "pqr"}
        lines = [{"p": None}, *(random_value(rng, kind) or {} for _ in range(6))]
        monkeypatch.setattr(jsonl, "_BLOCK_BYTES", pick(rng, [16, 128, 8 << 20]))

        pool = pool_of("\n".join(map(json.dumps, lines)).encode())

        dtype = pa.struct(list(pool.schema))
        assert rows(pool) == [with_missing_keys(line, dtype) for line in lines]


def pick(rng, values):
    return values[rng.integers(len(values))]


def random_kind(rng, depth=0):
    """A kind of scalar, a list of a kind, or keys with theirs."""
    kinds = ["int", "float", "bool", "str", "null"]
    kind = pick(rng, [*kinds, "list", "object"] if depth < 3 else kinds)
    if kind == "list":
        return [random_kind(rng, depth + 1)]
    if kind == "object":
        return {key: random_kind(rng, depth + 1) for key in "abc"[: rng.integers(4)]}
    return kind


def random_value(rng, kind):
    if rng.random() < 0.3:
        return None
    if isinstance(kind, list):
        return [random_value(rng, kind[0]) for _ in range(rng.integers(4))]
    if isinstance(kind, dict):
        present = [key for key in kind if rng.random() < 0.7]
        return {key: random_value(rng, kind[key]) for key in present}
    return {
        "int": int(rng.integers(-5, 2**63 - 1)),
        "float": rng.random(),
        "bool": bool(rng.random() < 0.5),
        "str": pick(rng, ["", "\n", 'é"[{', "2020-01-01", "2020-01-01 10:00:00"]),
        "null": None,
    }[kind]


def with_missing_keys(value, dtype):
    """What a value is among others of its type."""
    if isinstance(value, list):
        return [with_missing_keys(entry, dtype.value_type) for entry in value]
    if isinstance(value, dict):
        fields = [dtype.field(i) for i in range(dtype.num_fields)]
        assert {*value} <= {field.name for field in fields}
        return {f.name: with_missing_keys(value.get(f.name), f.type) for f in fields}
    return value


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}"), ("[ ", "\t]")])
@pytest.mark.parametrize("leaf", ["1", '"]]]{\\"{{"', "null"])
def test_values_may_be_nested_as_deep_as_arrow_can_keep(pool_of, left, right, leaf):
    deep = '{"x": "[[[", "a": ' + 63 * left + leaf + 63 * right + "}"

    assert rows(pool_of(deep.encode())) == [json.loads(deep)]


@pytest.mark.parametrize("depth", [64, 200, 5000, 300_000])
def test_line_that_is_nested_too_deep_is_named(pool_of, depth):
    flat = b'{"x": [%s]}\n' % b", ".join([b'"["'] * 100)
    lists = b'{"a": ' + b"[" * depth + b"]" * depth + b"}\n"
    message = (
        rf"0\.jsonl: line 2: lists and objects in each other, {depth + 1} deep; at most"
    )

    with pytest.raises(PoolError, match=message):
        pool_of(flat + lists)
    with pytest.raises(PoolError, match=message):
        pool_of(flat + lists.replace(b"[", b'{"a":').replace(b"]", b"}"))
    if depth > 64:
        with pytest.raises(PoolError, match=r"0\.jsonl: line 1: not JSON: "):
            pool_of(b'{"a":\n' + b"[\n" * depth)
