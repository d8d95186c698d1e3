from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from subsets import NUM_EXAMPLES, pool_table

from curator.errors import ConfigError
from curator.offline._column_difference import comparable, compare_columns
from curator.offline._difference import compare_categories, compare_numbers

FLOATS = st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from(
    [np.nan, np.inf, -np.inf]
)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(FLOATS, max_size=60), data=st.data())
def test_every_finite_number_is_in_a_bin(
    values: list[float], data: st.DataObject
) -> None:
    numbers = np.array(values, np.float32)
    flags = st.lists(st.booleans(), min_size=len(values), max_size=len(values))
    chosen = np.array(data.draw(flags), bool)

    found = compare_numbers("x", numbers, chosen, num_bins=7)

    for summary, counts, part in (
        (found.whole, found.whole_counts, numbers),
        (found.subset, found.subset_counts, numbers[chosen]),
    ):
        finite = part[np.isfinite(part)].astype(float)
        assert sum(counts) == summary.num_finite == len(finite)
        assert summary.num_not_finite == len(part) - len(finite)
        if len(finite):
            assert summary.min == finite.min()
            assert summary.max == finite.max()
            assert summary.quantiles["50%"] == pytest.approx(np.median(finite))
            assert summary.mean == pytest.approx(finite.mean(), rel=1e-5, abs=1e-5)
        else:
            assert summary.mean is summary.std is summary.min is summary.max is None
            assert summary.quantiles == {}
    if found.whole.num_finite:
        assert len(found.edges) == 8
        assert (np.diff(found.edges) >= 0).all()


def test_bins_are_as_wide_as_most_of_the_values() -> None:
    values = np.append(np.linspace(0, 1, 1000), [1e6, -1e6])

    found = compare_numbers("x", values, np.ones(1002, bool))

    assert -0.1 < found.edges[0] < found.edges[-1] < 1.1
    assert sum(found.whole_counts) == 1002
    assert found.whole.max == 1e6


def test_numbers_whose_squares_are_infinite_have_no_spread() -> None:
    values = np.array([-1e200, 1e200])

    found = compare_numbers("x", values, np.ones(2, bool))

    assert (found.whole.mean, found.whole.std) == (0.0, np.inf)
    assert (found.whole.min, found.whole.max) == (-1e200, 1e200)


def test_categories_are_the_most_frequent_ones() -> None:
    values = np.array([3, 1, 3, 2, 2, 3, 9])

    found = compare_categories("label", values, values > 2, max_values=2)

    assert found.values == ["3", "2"]
    assert (found.whole_counts, found.subset_counts) == ([3, 2], [3, 0])
    assert (found.num_values, found.whole_rest, found.subset_rest) == (4, 2, 1)


def test_a_null_is_a_category() -> None:
    values = np.array(["a", None, "a"], object)

    found = compare_categories("c", values, np.array([True, True, False]))

    assert found.values == ["a", "(none)"]
    assert found.subset_counts == [1, 1]


def test_columns_are_labels_numbers_or_lengths() -> None:
    table = pool_table()
    chosen = np.arange(NUM_EXAMPLES) % 3 == 0
    names = [*comparable(table.schema), "picture"]

    numbers, categories = compare_columns(
        table.to_batches(max_chunksize=64), chosen, names
    )

    assert [number.name for number in numbers] == [
        *("length", "len(tokens)", "len(picture)")
    ]
    assert [category.name for category in categories] == [
        *("domain", "label", "text", "maybe")
    ]
    assert numbers[1].whole.mean == np.mean([i % 7 for i in range(NUM_EXAMPLES)])
    assert numbers[1].subset.num_finite == chosen.sum()
    domains = table["domain"].to_numpy(zero_copy_only=False)
    for value, whole, subset in zip(
        categories[0].values,
        categories[0].whole_counts,
        categories[0].subset_counts,
        strict=True,
    ):
        assert whole == (domains == value).sum()
        assert subset == (domains[chosen] == value).sum()
    assert "(none)" in categories[3].values


def test_what_has_many_values_is_no_label() -> None:
    texts = [f"{i:0{i % 5 + 4}}" for i in range(2000)]
    table = pa.table({"text": texts, "id": np.arange(2000) * 3})
    chosen = np.arange(2000) < 500

    numbers, categories = compare_columns(
        table.to_batches(max_chunksize=300), chosen, ["text", "id"]
    )

    assert categories == []
    assert [number.name for number in numbers] == ["len(text)", "id"]
    assert numbers[0].whole.mean == np.mean([len(text) for text in texts])
    assert numbers[1].subset.max == 3 * 499


def test_no_columns_are_no_differences() -> None:
    assert compare_columns([], np.ones(0, bool), []) == ([], [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("txt", r"compare: no column 'txt' \(did you mean 'text'\?\)"),
        ("vector", "compare: 'vector' is .*, which has neither values to count nor a "),
    ],
)
def test_columns_that_cannot_be_compared_are_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparable(pool_table().schema, ["text", name])
