"""Examples as cards: what they are, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.report._columns import Columns, array_of
from curator.report._content import Card
from curator.report._pictures import to_png
from curator.report._words import clean, number

if TYPE_CHECKING:
    from curator.pools import Pool

__all__ = ["NO_POOL", "Examples"]

NO_POOL = (
    "Only ids are shown: give the configuration and the pool's name (--config "
    "server.toml --pool NAME) to see the examples themselves."
)

_MAX_FACT = 40
_MAX_NUMBERS = 24


class Examples:
    """Makes cards of examples, with what the pool has of them if there is one."""

    def __init__(self, pool: Pool | None, columns: Columns) -> None:
        """Takes the pool, or None, and how its columns are shown."""
        self._pool = pool
        self._columns = columns

    @property
    def are_shown(self) -> bool:
        """Whether there is more to show than ids."""
        return self._pool is not None and bool(self._columns.shown)

    def cards(
        self, ids: np.ndarray, facts: Sequence[Sequence[tuple[str, str]]]
    ) -> list[Card]:
        """Returns a card for each example.

        Args:
            ids: Of the examples.
            facts: What is said of each.

        Raises:
            PoolError: A row cannot be read.
        """
        if self._pool is None or not self._columns.shown or not len(ids):
            return [
                Card(f"example {example}", each)
                for example, each in zip(ids.tolist(), facts, strict=True)
            ]
        rows = self._pool.take(ids.astype(np.int64), self._columns.shown)
        return [
            self._card(rows, row, example, each)
            for row, (example, each) in enumerate(zip(ids.tolist(), facts, strict=True))
        ]

    def _card(
        self, rows: Any, row: int, example: int, facts: Sequence[tuple[str, str]]
    ) -> Card:
        pictures: list[tuple[str, bytes]] = []
        texts: list[tuple[str, str]] = []
        problems: list[str] = []
        more = list(facts)
        for name in self._columns.pictures:
            try:
                pictures.append((name, to_png(_pixels(rows.column(name), row))))
            except ValueError as error:
                problems.append(f"{name}: no picture ({clean(str(error), 120)})")
        for name in self._columns.texts:
            try:
                value = rows.column(name)[row].as_py()
            except UnicodeDecodeError:
                problems.append(f"{name}: no text (not UTF-8)")
                continue
            texts.append((name, "(null)" if value is None else clean(value)))
        texts += [
            (name, _numbers(rows.column(name), row)) for name in self._columns.numbers
        ]
        group = self._columns.group
        more += [
            (name, _fact(rows.column(name)[row]))
            for name in (group, *self._columns.facts)
            if name is not None
            and name not in (*self._columns.texts, *self._columns.numbers)
        ]
        return Card(f"example {example}", more, pictures, texts, problems)


def _pixels(column: Any, row: int) -> bytes | np.ndarray:
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        value = column[row].as_py()
        if value is None:
            msg = "there is none"
            raise ValueError(msg)
        return value
    return array_of(column, row)


def _numbers(column: Any, row: int) -> str:
    if not column[row].is_valid:
        return "(null)"
    try:
        values = array_of(column, row).reshape(-1)
    except ValueError as error:
        return f"({error})"
    shown = " ".join(number(float(value)) for value in values[:_MAX_NUMBERS])
    more = len(values) - _MAX_NUMBERS
    return f"{shown} … ({len(values):,} numbers)" if more > 0 else shown


def _fact(scalar: Any) -> str:
    try:
        value: object = scalar.as_py()
    except UnicodeDecodeError:
        return "(not UTF-8)"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return clean(str(value), _MAX_FACT)
