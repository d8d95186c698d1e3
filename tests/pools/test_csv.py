import gzip

import numpy as np
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import _csv as csv
from curator.pools import open_pool


@pytest.fixture
def pool_of(tmp_path):
    """Returns a function of the bytes of files that opens their pool."""

    def make(*contents, name="csv"):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for i, content in enumerate(contents):
            (folder / f"{i}.{name}").write_bytes(content)
        return open_pool("csv", folder, fingerprint_cache=tmp_path / "state" / "f")

    return make


def column(pool, name):
    values = pool.take(np.arange(pool.num_examples), [name]).column(0)
    return values.type, values.to_pylist()


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        (["1", "-20"], pa.int64(), [1, -20]),
        (["1", "2.5", "-1e3", ".5"], pa.float64(), [1.0, 2.5, -1000.0, 0.5]),
        (["true", "FALSE"], pa.bool_(), [True, False]),
        (["1", "true"], pa.string(), ["1", "true"]),
        (["01", "2"], pa.string(), ["01", "2"]),
        (["0x10"], pa.string(), ["0x10"]),
        (["12345678901234567890"], pa.string(), ["12345678901234567890"]),
        (["2020-01-01"], pa.string(), ["2020-01-01"]),
        (["NA", "null"], pa.string(), ["NA", "null"]),
        (['"1"', "2"], pa.int64(), [1, 2]),
        (['"a, b"', '"say ""x"""'], pa.string(), ["a, b", 'say "x"']),
        (['"two\nlines"'], pa.string(), ["two\nlines"]),
    ],
)
def test_column_has_the_narrowest_type_of_its_cells(pool_of, cells, dtype, values):
    assert column(pool_of("\n".join(["a", *cells]).encode()), "a") == (dtype, values)


def test_empty_cell_is_null_unless_the_column_is_text(pool_of):
    pool = pool_of(b"a,b,c\n1,,\n,x,\n")

    assert column(pool, "a") == (pa.int64(), [1, None])
    assert column(pool, "b") == (pa.string(), ["", "x"])
    assert column(pool, "c") == (pa.string(), ["", ""])


def test_type_is_that_of_all_blocks_of_all_files(pool_of, monkeypatch):
    monkeypatch.setattr(csv, "CSV_BLOCK_BYTES", 64)
    whole = b"a,b,c\n" + b"1,2,true\n" * 100

    pool = pool_of(whole, b"a,b,c\n1.5,x,false\n")

    assert column(pool, "a") == (pa.float64(), [1.0] * 100 + [1.5])
    assert column(pool, "b") == (pa.string(), ["2"] * 100 + ["x"])
    assert column(pool, "c") == (pa.bool_(), [True] * 100 + [False])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", r"0\.csv: not CSV, .*Row #3: Expected 2 columns, got 3"),
        (b"a\n1\n\xff\n", r"0\.csv: not CSV, .*Row #3: .*invalid UTF8"),
        (b"", r"0\.csv: not CSV, or damaged: Empty CSV file"),
        (b"a,b\n", r"0\.csv: a pool has at least one example; the files have no rows"),
        (b"a,a\n1,2\n", r"0\.csv: two columns of one name: a"),
    ],
)
def test_wrong_file_is_named(pool_of, content, message):
    with pytest.raises(PoolError, match=message):
        pool_of(content)


@pytest.mark.parametrize("block_bytes", [1 << 20, 24])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'a,b\n1,x\n2,"oops\n3,y\n',
            r"Row #3: the quote before 'oops\\n3,y\\n.*umn 'b'",
        ),
        (b'a,b\n1,x\n2,"oops', r"Row #3: the quote before 'oops' in col"),
        (b'a,b\n1,x\n2,"say ""', r"Row #3: the quote before 'say \"' in c"),
        (b'a,b\r\n1,x\r\n2,"\r\n', r"Row #3: the quote before '\\r\\n' in"),
        (b'a,b\n1,x\n"oops,2\n', r"Row #3: Expected 2 columns, got 1: \"oops"),
        (
            b'a,b\n1,x\n\n2,"',
            r"Row #3: the quote before '.* in column 'b' does not end",
        ),
    ],
)
def test_quote_that_does_not_end_is_told(
    pool_of, monkeypatch, content, message, block_bytes
):
    monkeypatch.setattr(csv, "CSV_BLOCK_BYTES", block_bytes)

    with pytest.raises(PoolError, match=rf"1\.csv: not CSV, or damaged: .*{message}"):
        pool_of(b"a,b\n0,0\n", content)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n", "\r", "\n\r\n\n"])
@pytest.mark.parametrize(
    ("last", "value"),
    [
        ("y", "y"),
        ("", ""),
        ('""', ""),
        ('"y"', "y"),
        ('"y\n"', "y\n"),
        ('"\r\r\n\n"', "\r\r\n\n"),
        ('"say """', 'say "'),
        ('5"', '5"'),
        ('"a"b"c', 'ab"c'),
    ],
)
def test_file_may_end_with_and_without_line_breaks(pool_of, last, value, end):
    pool = pool_of(b"a,b\n1,x\n", f"a,b\n2,{last}{end}".encode(), b"a,b\n3,z")

    assert column(pool, "a") == (pa.int64(), [1, 2, 3])
    assert column(pool, "b") == (pa.string(), ["x", value, "z"])


@pytest.mark.parametrize("row", [b"2," + b"y" * 200, b'2,"' + b"y\n" * 100])
def test_row_that_is_too_long_is_told(pool_of, monkeypatch, row):
    monkeypatch.setattr(csv, "CSV_BLOCK_BYTES", 64)

    with pytest.raises(
        PoolError, match=r"0\.csv: has a row of more than 64 bytes, whi"
    ):
        pool_of(b"a,b\n1,x\n" + row + b"\n3,z\n")


def test_files_with_other_columns_are_told(pool_of):
    with pytest.raises(PoolError, match=r"0\.csv has 'b', .*1\.csv has not"):
        pool_of(b"a,b\n1,2\n", b"a\n1\n")


def test_packed_file_that_is_cut_short_is_told(pool_of):
    packed = gzip.compress(b"a\n" + b"1\n" * 1000)

    with pytest.raises(PoolError, match=r"0\.csv\.gz: cannot be read: Truncated"):
        pool_of(packed[:-4], name="csv.gz")
