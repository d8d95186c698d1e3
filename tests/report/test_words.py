"""Numbers and names as people read them."""

from __future__ import annotations

import pytest

from curator.report._words import (
    axis_label,
    clean,
    duration,
    megabytes,
    number,
    share,
    slug,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-3.0, "-3"),
        (1234567.0, "1,234,567"),
        (0.99999, "1"),
        (99999.7, "100,000"),
        (1.0006, "1.001"),
        (0.0123456, "0.01235"),
        (-123.456, "-123.5"),
        (12345.678, "12,350"),
        (0.000123456, "0.000123"),
        (1.5e12, "1.5e+12"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_have_four_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_are_per_cent() -> None:
    assert (share(1, 3), share(0, 5), share(1, 3000)) == ("33.3 %", "0.0 %", "0.033 %")
    assert share(0, 0) == "-"


def test_units_are_those_of_the_model() -> None:
    assert axis_label("loss") == "loss (nats)"
    assert (
        axis_label("reference.loss", "causal_lm") == "reference.loss (nats per token)"
    )
    assert axis_label("grad_norm") == "grad_norm"


def test_sizes_and_times() -> None:
    assert (megabytes(1500), megabytes(2_500_000)) == ("1.5 kB", "2.5 MB")
    assert [duration(s) for s in (1.234, 61.0, 600.0, 9000.0)] == [
        "1.23 s",
        "61 s",
        "10 min",
        "2.5 h",
    ]


def test_a_name_of_a_file_has_no_odd_characters() -> None:
    assert slug("len(text)/../x") == "len-text-x"
    assert slug("///") == "score"
    assert slug("x" * 300) == "x" * 60


def test_long_texts_are_cut_and_characters_that_control_replaced() -> None:
    assert clean("a\x00b\x1b[31m\tc\n") == "a\ufffdb\ufffd[31m\tc\n"
    assert clean("x" * 1000) == "x" * 320 + " … (1,000 characters)"
