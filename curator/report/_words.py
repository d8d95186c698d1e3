"""Numbers, text, and the names of scores, for people."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import SupportsFloat

__all__ = [
    "axis_label",
    "clean",
    "duration",
    "megabytes",
    "number",
    "one_line",
    "share",
    "slug",
]

_MAX_TEXT = 320  # characters
_MAX_SLUG = 60  # a file's name has 255 bytes at most, and may have two of these

_UNITS = {
    "loss": "nats",
    "entropy": "nats",
    "similarity": "cosine",
    "num_tokens": "tokens",
}


def axis_label(score: str, kind: str | None = None) -> str:
    """Returns the name of a score with its unit.

    Args:
        score: Its name.
        kind: Of the model that it comes from.
    """
    unit = _UNITS.get(score.rpartition(".")[2], "")
    if kind == "causal_lm" and unit == "nats":
        unit = "nats per token"
    return f"{score} ({unit})" if unit else score


def clean(text: str, limit: int = _MAX_TEXT) -> str:
    """Returns a text without characters that control, cut where it is long."""
    size = len(text)
    shown = "".join(
        each
        if each in "\n\t" or unicodedata.category(each) not in ("Cc", "Cs")
        else "\N{REPLACEMENT CHARACTER}"
        for each in text[:limit]
    )
    return shown if size <= limit else f"{shown.rstrip()} … ({size:,} characters)"


def one_line(text: str) -> str:
    """Returns a text without characters that control, on one line."""
    return clean(" ".join(text.split()))


def number(given: SupportsFloat) -> str:
    """Returns a number with four digits that matter, and whole ones whole."""
    value = float(given)
    if not math.isfinite(value):
        return str(value)
    if value != int(value):
        value = float(f"{value:.4g}")
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e6:
        digits = max(3 - math.floor(math.log10(abs(value))), 0)
        return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def share(part: SupportsFloat, whole: SupportsFloat) -> str:
    """Returns how much of a whole a part is."""
    if not float(whole):
        return "-"
    percent = 100 * float(part) / float(whole)
    return f"{percent:.1f} %" if percent >= 1 or not percent else f"{percent:.2g} %"


def megabytes(num_bytes: int) -> str:
    """Returns a size."""
    return (
        f"{num_bytes / 1e6:,.1f} MB"
        if num_bytes >= 1e5
        else f"{num_bytes / 1e3:.1f} kB"
    )


def duration(seconds: float) -> str:
    """Returns a time."""
    if seconds < 120:
        return f"{seconds:,.2f} s" if seconds < 10 else f"{seconds:,.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def slug(name: str) -> str:
    """Returns a name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_MAX_SLUG] or "score"
