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
