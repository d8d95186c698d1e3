"""Labels are one line of what the fonts can draw, and notes say the rest."""

from __future__ import annotations

import pytest

from curator.report import _labels
from curator.report._labels import families, labels_of, short

HIDDEN = "\ufdd0"  # no character, so that no font has it


def test_long_names_are_cut() -> None:
    assert short("x" * 28) == "x" * 28
    assert short("x" * 29) == "x" * 27 + "…"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\nb", "a b"),
        (" a \t\r\n b ", "a b"),
        ("\x00x\x1b[31m", "\ufffdx\ufffd[31m"),
        ("bücher", "bücher"),
        (f"a{HIDDEN}", "a\ufffd"),
        ("", ""),
    ],
)
def test_a_label_is_one_line_of_what_can_be_drawn(name: str, text: str) -> None:
    assert short(name) == text


def test_names_that_no_font_can_draw_are_numbered_and_the_note_says_which() -> None:
    labels = labels_of(["web", f"{HIDDEN}1", "a\nb", f"2{HIDDEN}"])

    assert labels.texts == ["web", "[1]", "a b", "[2]"]
    assert labels.note == (
        "No font that was found can draw some names: "
        f"[1] is {HIDDEN}1, [2] is 2{HIDDEN}."
    )


def test_without_such_names_there_is_no_note() -> None:
    assert labels_of(["web", "\x00", "été"]).note is None


def test_fonts_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fallback that is not there would be warned of at every label."""
    monkeypatch.setattr(_labels, "_FALLBACKS", ("DejaVu Serif", "Not Installed"))
    families.cache_clear()

    found = families()

    families.cache_clear()
    assert found == ["DejaVu Sans", "DejaVu Serif"]
