"""Labels of plots: names as text that the fonts at hand can draw."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

from curator.errors import MissingDependencyError
from curator.report._words import one_line

__all__ = ["Labels", "families", "labels_of", "short"]

_FAMILY = "DejaVu Sans"  # comes with matplotlib
# What systems have of Chinese, Japanese and Korean; those that are there are asked in
# this order for what the first font lacks.
_FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK TC",
    "Noto Sans CJK KR",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans TC",
    "Noto Sans KR",
    "Source Han Sans",
    "IPAexGothic",
    "IPAGothic",
    "TakaoGothic",
    "VL Gothic",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "NanumGothic",
    "UnDotum",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Meiryo",
    "MS Gothic",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """Names as a plot shows them.

    Attributes:
        texts: One for each name; a number in brackets for what no font can draw.
        note: What the numbers stand for; None where there are none.
    """

    texts: Sequence[str]
    note: str | None


def labels_of(names: Sequence[str]) -> Labels:
    """Returns names that are to be labels.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    texts: list[str] = []
    numbered: list[str] = []
    for name in names:
        text = one_line(name)
        if any(_is_missing(each) for each in text):
            numbered.append(f"[{len(numbered) + 1}] is {text}")
            text = f"[{len(numbered)}]"
        texts.append(text)
    if not numbered:
        return Labels(texts, None)
    note = f"No font that was found can draw some names: {', '.join(numbered)}."
    return Labels(texts, note)


def short(name: str, length: int = 28) -> str:
    """Returns a name that fits beside a plot, of characters that can be drawn."""
    text = one_line(name)
    text = text if len(text) <= length else f"{text[: length - 1]}…"
    return "".join(_UNKNOWN if _is_missing(each) else each for each in text)


@functools.cache
def families() -> list[str]:
    """Returns the fonts that plots are drawn with.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import font_manager
    except ImportError as error:
        msg = (
            "a report needs matplotlib, which is not installed: "
            "pip install 'batch-curator[report]'"
        )
        raise MissingDependencyError(msg) from error
    found = {entry.name for entry in font_manager.fontManager.ttflist}
    return [_FAMILY, *(name for name in _FALLBACKS if name in found)]


@functools.cache
def _fonts() -> list[Any]:
    names = families()  # says what is not installed
    from matplotlib import font_manager

    manager = cast("Any", font_manager)  # its stubs are partial
    return [manager.get_font(manager.findfont(name)) for name in names]


def _is_missing(character: str) -> bool:
    if " " <= character <= "~":  # the most, without a look
        return False
    return not any(font.get_char_index(ord(character)) for font in _fonts())
