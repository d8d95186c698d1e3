"""Columns are shown as what they are, or as what the user says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from reports import png
from scorers import lists_of

from curator.errors import ConfigError
from curator.pools import MemoryPool, Pool, VirtualPool
from curator.report import Choice
from curator.report._columns import Columns, choose_columns
from curator.report._examples import Examples

RNG = np.random.default_rng(0)


def tensors(shape: tuple[int, ...], dtype: type) -> pa.Array:
    values = RNG.integers(0, 9, (3, *shape)).astype(dtype)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


def pool_of(**columns: object) -> Pool:
    return MemoryPool(pa.table(columns))


def chosen(pool: Pool, **choice: str) -> Columns:
    return choose_columns(pool, Choice(**choice))


PICTURES = {
    "encoded": pa.array([None, png(), png()]),
    "struct": pa.array([{"bytes": png(), "path": None}] * 3),
    "channels_first": tensors((3, 8, 8), np.uint8),
    "grey": tensors((8, 8), np.uint8),
    "floats": tensors((8, 8, 3), np.float32),
    "nested": pa.array(
        RNG.integers(0, 9, (3, 8, 8)).tolist(), pa.list_(pa.list_(pa.uint8()))
    ),
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_pictures_are_found(name: str) -> None:
    pool = pool_of(it=PICTURES[name], other=pa.array([1, 2, 3]))

    columns = chosen(pool)

    assert columns.pictures == ["it"]
    cards = Examples(pool, columns).cards(np.array([2, 1]), [[], []])
    assert [len(card.pictures) for card in cards] == [1, 1]
    assert cards[0].pictures[0][1].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "column",
    [
        tensors((8, 8), np.float32),  # T tokens of D features look the same
        lists_of(RNG.integers(0, 9, (3, 16))),
        lists_of(RNG.integers(0, 9, (3, 64)).astype(np.uint8)),
    ],
)
def test_what_may_be_anything_is_numbers_until_the_user_says(column: pa.Array) -> None:
    pool = pool_of(it=column)

    assert chosen(pool).numbers == ["it"]
    assert chosen(pool, image="it").pictures == ["it"]


def test_flat_pixels_are_a_picture_by_their_name() -> None:
    flat = lists_of(RNG.integers(0, 9, (3, 64)).astype(np.uint8))

    assert chosen(pool_of(pixels=flat)).pictures == ["pixels"]


def test_words_hide_token_ids_and_the_domain_is_found() -> None:
    pool = pool_of(
        tokens=lists_of(RNG.integers(0, 9, (3, 30))),
        text=["a", None, "c"],
        domain=["x", "y", "y"],
        score=[0.5, 1.0, float("nan")],
        good=[True, False, None],
    )

    columns = chosen(pool)

    assert (columns.texts, columns.numbers) == (["text"], [])
    assert (columns.group, columns.facts) == ("domain", ["score", "good"])
    card = Examples(pool, columns).cards(np.array([1, 2]), [[("loss", "3")], []])
    assert card[0].texts == [("text", "(null)")]
    assert card[0].facts == [
        ("loss", "3"),
        ("domain", "y"),
        ("score", "1"),
        ("good", "no"),
    ]
    assert card[1].facts[1:] == [("score", "nan"), ("good", "null")]


def test_token_ids_are_shown_as_numbers_and_cut() -> None:
    pool = pool_of(tokens=lists_of(np.arange(60).reshape(2, 30)))

    (card,) = Examples(pool, chosen(pool)).cards(np.array([1]), [[]])

    assert card.texts == [
        ("tokens", f"{' '.join(map(str, range(30, 54)))} … (30 numbers)")
    ]


def test_what_the_user_names_is_shown_alone() -> None:
    pool = pool_of(a=["1"], b=["2"], picture=[png()], other=[png()], kind=[3])

    columns = chosen(pool, text="b", image="other", group="kind")

    assert (columns.texts, columns.pictures) == (["b"], ["other"])
    assert columns.group == "kind"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number", "3"),
        ("good", "1"),
        ("tokens", "1 nan 3"),
        ("ragged", "(its lists are not of one length)"),
        ("pixels", "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 … (64 numbers)"),
        ("domain", "web"),
    ],
)
def test_text_may_be_numbers_and_is_shown_once(name: str, text: str) -> None:
    pool = pool_of(
        number=[3],
        good=[True],
        tokens=pa.array([[1, None, 3]]),
        ragged=pa.array([[[1], [2, 3]]]),
        pixels=pa.array([[[1] * 8] * 8], pa.list_(pa.list_(pa.uint8()))),
        domain=["web"],
    )

    columns = chosen(pool, text=name)

    assert len(set(columns.shown)) == len(columns.shown)
    (card,) = Examples(pool, columns).cards(np.array([0]), [[]])
    assert card.texts == [(name, text)]
    assert name not in dict(card.facts)


def test_pictures_may_begin_with_rows_that_have_none() -> None:
    pool = pool_of(
        late=[None] * 9 + [png()], grey=pa.array([None] + [[[0.5] * 8] * 8] * 9)
    )

    for name in ("late", "grey"):
        columns = chosen(pool, image=name)

        assert columns.pictures == [name]
        (card,) = Examples(pool, columns).cards(np.array([9]), [[]])
        assert [title for title, _ in card.pictures] == [name]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"text": "captoin"}, "--text: the pool has no column 'captoin' .did you mean"),
        ({"image": "nothing"}, "--image: the pool has no column 'nothing'"),
        ({"group": "x"}, "--domain: the pool has no column 'x'"),
        ({"group": "odd"}, "--domain: column 'odd' is .*; expected words or whole"),
        ({"image": "caption"}, "--image: column 'caption' .string. is no picture"),
        ({"image": "odd"}, "--image: column 'odd' .* 13 numbers make no square"),
        ({"image": "bytes"}, "--image: column 'bytes' .binary. is no picture"),
        ({"text": "bytes"}, "--text: column 'bytes' is binary; expected text, num"),
        ({"text": "odd", "image": "odd"}, "--text and --image: both are column 'odd'"),
    ],
)
def test_a_column_that_cannot_be_shown_so_is_an_error(
    choice: dict[str, str], message: str
) -> None:
    pool = pool_of(
        caption=["a", "b"], odd=lists_of(np.ones((2, 13))), bytes=[b"no", b"one"]
    )

    with pytest.raises(ConfigError, match=message):
        chosen(pool, **choice)


def test_a_picture_that_is_damaged_is_named_on_its_card() -> None:
    pool = pool_of(image=[png(), png()[:50], None])

    cards = Examples(pool, chosen(pool)).cards(np.arange(3), [[], [], []])

    assert [len(card.pictures) for card in cards] == [1, 0, 0]
    assert cards[1].problems[0].startswith("image: no picture (cannot be decoded")
    assert cards[2].problems == ["image: no picture (there is none)"]


def test_a_virtual_pool_has_nothing_but_ids() -> None:
    pool = VirtualPool(5)
    examples = Examples(pool, chosen(pool))

    assert not examples.are_shown
    assert examples.cards(np.array([3]), [[("loss", "1")]])[0].title == "example 3"
