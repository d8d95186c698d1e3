from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.offline import Where
from curator.offline import _where as where_module
from curator.pools import MemoryPool

ROWS = pa.record_batch(
    {
        "lang": ["en", "de", None, "en", "fr"],
        "length": [10, 600, 20, None, 300],
        "quality": [0.1, 0.5, math.nan, 0.9, 0.3],
        "flagged": [True, False, False, None, True],
        "day": pa.array([dt.date(2026, 1, d) for d in (1, 2, 3, 4, 5)]),
        "domain": pa.array(["a", "b", "a", None, "c"]).dictionary_encode(),
        "odd name": [1, 2, 3, 4, 5],
        "tags": [["x"], [], None, ["y"], ["x"]],
    }
)


def rows_where(text: str) -> list[int]:
    return np.flatnonzero(Where(text).of(ROWS)).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('lang == "en"', [0, 3]),
        ("lang=='en' and length < 512", [0]),
        ('lang == "en" or length > 500', [0, 1, 3]),
        ("not flagged", [1, 2]),
        ("flagged", [0, 4]),
        ("flagged == True", [0, 4]),
        ("0.2 <= quality < 0.9", [1, 4]),
        ("quality > -1", [0, 1, 3, 4]),
        ("quality == quality", [0, 1, 3, 4]),
        ("lang != 'en'", [1, 4]),
        ("lang in ('en', 'fr')", [0, 3, 4]),
        ("lang not in ['en', 'fr']", [1]),
        ("length in {10, 300}", [0, 4]),
        ("lang is None", [2]),
        ("length is not None and lang is not None", [0, 1, 4]),
        ("not (length < 100 or flagged)", [1]),
        ("day >= '2026-01-04'", [3, 4]),
        ("'2026-01-02' > day", [0]),
        ("domain == 'a'", [0, 2]),
        ("domain in ('b', 'c')", [1, 4]),
        ('column("odd name") >= 4', [3, 4]),
        ("length < column('odd name')", []),
        ("length == 10.0", [0]),
    ],
)
def test_a_condition_is_true_of_these_rows(text: str, rows: list[int]) -> None:
    assert rows_where(text) == rows


def test_how_it_is_written_does_not_matter() -> None:
    one = Where("  lang=='en'   and (length<512) ")
    two = Where('lang == "en" and length < 512')
    three = Where("""
        lang == "en"  # as of its site
        and length < 512  # what fits
    """)

    assert one.text == two.text == three.text == "lang == 'en' and length < 512"
    assert one.columns == ["lang", "length"]


TYPED = pa.record_batch(
    {
        "f4": pa.array([0.1, 0.3, None, math.inf, math.nan], pa.float32()),
        "half": pa.array([0.1, 0.25, None, 5.0, -2.0], pa.float16()),
        "dec": pa.array([Decimal(i) / 10 for i in (1, 3, 5)] + [None] * 2),
        "u8": pa.array([0, 1, 200, 255, None], pa.uint8()),
        "hash": pa.array([0, 2**63, 2**63 + 1, 2**64 - 1, None], pa.uint64()),
        "view": pa.array(["a", "b", None, "a", "c"], pa.string_view()),
        "time": pa.array([0, 86_400, 172_800, None, 9], pa.timestamp("s", tz="UTC")),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("f4 == 0.1", [0]),
        ("f4 in (0.1, 7)", [0]),
        ("f4 <= 0.3", [0, 1]),
        ("f4 < 0.3", [0]),
        ("0.3 > f4", [0]),
        ("not f4 < 0.2", [1]),
        ("f4 < 1e300", [0, 1]),
        ("f4 is None", [2, 3, 4]),
        ("half == 0.1", [0]),
        ("half >= 0.25", [1, 3]),
        ("half == half", [0, 1, 3, 4]),
        ("half in (5, -2)", [3, 4]),
        ("dec == 0.3", [1]),
        ("dec in (0.3, 0.5)", [1, 2]),
        ("dec >= 0.3 and dec <= 0.3", [1]),
        ("dec < 1e300", [0, 1, 2]),
        ("u8 < 300", [0, 1, 2, 3]),
        ("u8 > -1", [0, 1, 2, 3]),
        ("u8 > 300", []),
        ("u8 != 300", [0, 1, 2, 3]),
        ("not u8 == 300", [0, 1, 2, 3]),
        ("u8 < 1.5", [0, 1]),
        ("1.5 < u8", [2, 3]),
        ("u8 == 1.5", []),
        ("u8 in (1, 2.5, 300, -4)", [1]),
        ("u8 not in (1, 300)", [0, 2, 3]),
        ("u8 < 1e999", [0, 1, 2, 3]),
        ("hash > 5", [1, 2, 3]),
        ("hash >= 9223372036854775809", [2, 3]),
        ("hash in (9223372036854775808,)", [1]),
        ("hash > -1", [0, 1, 2, 3]),
        ("hash < 123456789012345678901234567890", [0, 1, 2, 3]),
        ("view == 'a'", [0, 3]),
        ("view in ('b', 'c')", [1, 4]),
        ("time >= '1970-01-02'", [1, 2]),
        ("'1970-01-02T00:00:00+00:00' == time", [1]),
        ("time in ('1970-01-03',)", [2]),
    ],
)
def test_what_is_written_is_in_the_type_of_the_column(
    text: str, rows: list[int]
) -> None:
    assert np.flatnonzero(Where(text).of(TYPED)).tolist() == rows


NUMBERS = st.one_of(st.none(), st.integers(-3, 3))
COMPARED = st.builds(
    "{} {} {}".format,
    st.sampled_from(["a", "b", "1", "-2"]),
    st.sampled_from(["<", "<=", "==", "!=", ">", ">="]),
    st.sampled_from(["a", "b", "0", "2"]),
)
CONDITIONS = st.recursive(
    COMPARED,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(text=CONDITIONS, rows=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8))
def test_without_nulls_it_is_what_python_says(
    text: str, rows: list[tuple[int | None, int | None]]
) -> None:
    text = f"({text}) and a == a and b == b"
    batch = pa.record_batch(
        {
            "a": pa.array([a for a, _ in rows], pa.int64()),
            "b": pa.array([b for _, b in rows], pa.int64()),
        }
    )

    found = Where(text).of(batch)

    expected = [
        a is not None and b is not None and eval(text, {}, {"a": a, "b": b})
        for a, b in rows
    ]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"where: '': invalid syntax.* Expected a condition such as 'lang == "),
        ("lang = 'en'", "equal is written =="),
        ("lang == 'en", "unterminated"),
        ("1 < 2", "it names no column"),
        ("True", "True alone is no condition"),
        ("3", "3 alone is no condition"),
        ("__import__('os').system('true') == 0", "expected a column, a number, a text"),
        ("len(lang) > 3", r"len\(lang\): expected a column"),
        ("lang.startswith('e')", "expected a column"),
        ("length + 1 < 3", r"length \+ 1: expected a column"),
        ("lang if flagged else lang", "expected a column"),
        ("[x for x in lang]", "expected a column"),
        ("lambda: 0", "expected a column"),
        ("lang in 'en'", r"after 'in': expected values in parentheses"),
        ("lang in (length, 3)", "after 'in'"),
        ("lang is 'en'", "'is' stands only before None"),
        ("lang == None", "expected a column, a number"),
        ("column(lang) == 3", "expected a column"),
        ("lang == b'en'", "expected a column"),
        ("-lang == 3", "expected a column"),
        ("(" * 2000 + "lang" + ")" * 2000, "where: "),
        ("a\0b", "where: "),
        ("lang == 'en'\nflagged", "invalid syntax"),
        ("lang == 'en',\nflagged", "expected a column"),
        ("lang := 'en'\n", "invalid syntax"),
        ("lang\n:= 'en'", "expected a column"),
    ],
)
def test_what_is_no_condition_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Where(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lang < 3", "lang < 3: does not go with string and int64"),
        ("length == 'long'", "does not go with int64 and string"),
        ("tags == 'x'", "tags == 'x': "),
        ("lang", "lang is string, not true or false"),
        ("not length", "not length: does not go with int64"),
        ("flagged and length", "length: does not go with bool and int64"),
        ("length in ('a', 'b')", r"length in \('a', 'b'\): "),
        ("length == True", "length == True: does not go with int64 and bool"),
        ("flagged == 1", "flagged == 1: does not go with bool and int64"),
        ("length in (1, 'a')", r"length in \(1, 'a'\): does not go with int64"),
        ("day > 'noon'", "day > 'noon': "),
    ],
)
def test_a_column_that_does_not_go_with_it_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Where(text).of(ROWS)


def test_a_column_that_the_pool_lacks_is_told() -> None:
    pool = MemoryPool(pa.table({"length": [1, 2]}))

    with pytest.raises(
        ConfigError, match=r"where: pool 'p' has no 'lenght' \(did you mean 'length'"
    ):
        Where("lenght < 3").check_columns("p", pool)


@pytest.mark.parametrize("limit", [None, 1, 3, 1000])
def test_ids_are_positions_in_the_pool(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where_module, "_BLOCK", 7)
    values = np.random.default_rng(0).integers(0, 10, 50)
    pool = MemoryPool(pa.table({"x": values}))

    found = Where("x < 4").ids(pool, limit)

    np.testing.assert_array_equal(found, np.flatnonzero(values < 4)[:limit])
