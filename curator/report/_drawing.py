"""How a plot looks: its style, its axes, and the file that becomes of it."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Generator, Mapping
from typing import Any, cast

import numpy as np

from curator.report._labels import families

__all__ = [
    "BLUE",
    "GREY",
    "HALF",
    "LIGHT",
    "PALE",
    "SERIES",
    "WIDTH",
    "blues",
    "ceiling",
    "drawing",
    "legend",
    "mark",
    "plain",
    "scale",
    "whole_steps",
]

# Inches, of a whole line of the page and of half of one; 1.5 times the pixels that are
# shown, which is sharp on most screens.
WIDTH, HALF, _DPI = 9.8, 4.9, 150
_INK, GREY, PALE = "#22303c", "#7b8794", "#dfe4e8"
BLUE, LIGHT, _RED = "#2b6cb0", "#a9c6e3", "#c2410c"
# Okabe & Ito 2008, without yellow: told apart by those who do not see all colours.
SERIES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#7b8794",
)
_STYLE: Mapping[str, object] = {
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.labelcolor": _INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": _INK,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": _INK,
    "text.parse_math": False,  # a dollar in a label is a dollar
    "xtick.color": GREY,
    "xtick.labelcolor": _INK,
    "xtick.labelsize": 9,
    "ytick.color": GREY,
    "ytick.labelcolor": _INK,
    "ytick.labelsize": 9,
}


class _Drawn:
    axes: Any

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        self.png = b""


@contextlib.contextmanager
def drawing(width: float, height: float) -> Generator[_Drawn]:
    """Yields axes, and a place for the PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    fonts = families()  # says what is not installed
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():  # pyright: ignore[reportUnknownMemberType] - its stubs
        mpl.rcdefaults()
        cast("dict[str, object]", mpl.rcParams).update({**_STYLE, "font.family": fonts})
        drawn = _Drawn(Figure((width, height), dpi=_DPI, layout="constrained"))
        drawn.axes = drawn.figure.subplots()
        yield drawn
        file = io.BytesIO()
        # Without the program's version, equal numbers are equal files.
        drawn.figure.savefig(file, format="png", metadata={"Software": None})
        drawn.png = file.getvalue()


def legend(figure: Any, count: int) -> None:
    figure.legend(loc="outside upper left", ncols=min(count, 5), handlelength=1.4)


def whole_steps(axes: Any, at: np.ndarray) -> None:
    if len(at) > 1:
        axes.set_xlim(at[0], at[-1])
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain(axes.xaxis)


def scale(axes: Any, edges: np.ndarray, *, log: bool) -> None:
    if log:
        axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    plain(axes.xaxis)


def ceiling(numbers: np.ndarray) -> float:
    """Returns the height of the axis: room for the marks above the bars."""
    return 1.22 * float(numbers.max(initial=0)) or 1.0


def mark(axes: Any, marks: Mapping[str, float]) -> None:
    """Draws labelled lines; labels that would run into each other go a line down."""
    left, right = axes.get_xlim()
    is_log = axes.get_xscale() == "log"

    def position(value: float) -> float:
        if is_log:
            value, low, high = (math.log10(each) for each in (value, left, right))
        else:
            low, high = left, right
        return (value - low) / (high - low)

    ends = [-1.0, -1.0]  # where the last label of each row ends
    for text, value in sorted(marks.items(), key=lambda mark: mark[1]):
        if not left <= value <= right:
            continue
        place = position(value)
        width = 0.021 * len(text)
        row = 0 if place - width / 2 > ends[0] else 1
        if place - width / 2 <= ends[row]:
            axes.axvline(value, color=_RED, linewidth=0.9, ymax=0.8)
            continue
        ends[row] = place + width / 2
        height = 0.975 - 0.1 * row
        axes.axvline(value, color=_RED, linewidth=0.9, ymax=height - 0.09)
        axes.text(
            min(max(place, width / 2), 1 - width / 2),
            height,
            text,
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=8.5,
            color=_RED,
        )


def plain(axis: Any) -> None:
    """Lets an axis write 12,000 and 0.001, and neither offsets nor powers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    low, high = axis.get_view_interval()
    if axis.get_scale() == "log":
        axis.set_major_formatter(FuncFormatter(_power))
        if high / low >= 100:
            axis.set_minor_formatter(NullFormatter())
        else:
            axis.set_minor_formatter(FuncFormatter(_power))
    elif max(abs(low), abs(high)) >= 1000:
        axis.set_major_formatter(FuncFormatter(_thousands))
    else:
        axis.get_major_formatter().set_useOffset(False)


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}"


def _power(value: float, _: object) -> str:
    if 1e-4 <= value < 1e6:
        return f"{value:,.0f}" if value >= 1 else f"{value:.4g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")


def blues() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ink", ["#d6e4f2", "#5b94c9", "#12375c"])
