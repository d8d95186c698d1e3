"""What a report consists of, before it is a page: sections of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

__all__ = ["Block", "Card", "Figure", "Gallery", "Note", "Report", "Section", "Table"]

_HALF_LINE = 1000  # pixels


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """A paragraph.

    Attributes:
        text: Plain text; nothing in it is markup.
    """

    text: str
    kind: Literal["note"] = "note"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        header: Names of the columns; empty for facts, whose first column is a name.
        rows: One text for each column.
        caption: What it is of.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: Literal["table"] = "table"


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A plot.

    Attributes:
        name: Of its file, without ``.png``: letters, digits, ``-`` and ``_``.
        png: The file.
        caption: What it shows, which is also said to those who cannot see it.
    """

    name: str
    png: bytes
    caption: str

    @property
    def is_wide(self) -> bool:
        """Whether it takes a whole line of the page: wider than half of one."""
        return int.from_bytes(self.png[16:20], "big") > _HALF_LINE

    kind: Literal["figure"] = "figure"


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """An example.

    Attributes:
        title: Which one.
        facts: Numbers and short words about it, by name.
        pictures: Each column that is a picture, as PNG.
        texts: Each column that is text, cut where it is long.
        problems: What could not be shown, and why.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    texts: Sequence[tuple[str, str]] = ()
    problems: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Gallery:
    """Examples beside each other.

    Attributes:
        title: What they have in common.
        cards: The examples.
        caption: More on it.
    """

    title: str
    cards: Sequence[Card]
    caption: str = ""
    kind: Literal["gallery"] = "gallery"


Block: TypeAlias = Note | Table | Figure | Gallery


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        anchor: Its name in links: letters, digits and ``-``.
        title: The heading.
        blocks: What is in it, in order.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """All of it.

    Attributes:
        title: What it is of.
        subtitle: The same in a sentence.
        sections: The page.
        summary: The figures, of types that JSON has.
        lines: What a terminal shows.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    summary: Mapping[str, object]
    lines: Sequence[str]
