"""Plots: one kind of picture for one kind of question.

Each function returns the bytes of a PNG file, the same for the same numbers: nothing is
taken from the user's matplotlib settings, and the file carries no date or version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from curator.report._drawing import (
    BLUE,
    GREY,
    HALF,
    LIGHT,
    PALE,
    SERIES,
    WIDTH,
    blues,
    ceiling,
    drawing,
    legend,
    mark,
    plain,
    scale,
    whole_steps,
)
from curator.report._labels import short

__all__ = [
    "boxes",
    "counts",
    "histogram",
    "intervals",
    "overlay",
    "relation",
    "shares",
    "steps",
]

_MAX_AXIS = 44  # characters, which fit along each axis of the narrow plots


def histogram(
    edges: np.ndarray,
    numbers: np.ndarray,
    label: str,
    marks: Mapping[str, float],
    *,
    log: bool,
) -> bytes:
    """Returns bars of how many examples lie where, and marks of quantiles.

    Args:
        edges: Of the bins.
        numbers: Of examples in each.
        label: Of the horizontal axis, with its unit.
        marks: Where a line is drawn, by what it says.
        log: Whether the horizontal axis is logarithmic.
    """
    with drawing(HALF, 2.4) as drawn:
        axes = drawn.axes
        axes.stairs(numbers, edges, fill=True, color=LIGHT)
        axes.stairs(numbers, edges, color=BLUE, linewidth=0.9)
        scale(axes, edges, log=log)
        axes.set(xlabel=_axis(label), ylabel="examples", ylim=(0, ceiling(numbers)))
        axes.grid(axis="y")
        plain(axes.yaxis)
        mark(axes, marks)
    return drawn.png


def overlay(
    edges: np.ndarray,
    whole: np.ndarray,
    part: np.ndarray,
    label: str,
    names: tuple[str, str],
    *,
    log: bool,
) -> bytes:
    """Returns two histograms in shares: all examples, and those that were selected."""
    with drawing(HALF, 2.5) as drawn:
        axes = drawn.axes
        widest = 0.0
        for numbers, name, fill in ((whole, names[0], True), (part, names[1], False)):
            share = 100 * numbers / max(int(numbers.sum()), 1)
            widest = max(widest, float(share.max(initial=0.0)))
            if fill:
                axes.stairs(share, edges, fill=True, color=PALE, label=name)
            else:
                axes.stairs(share, edges, color=BLUE, linewidth=1.4, label=name)
        scale(axes, edges, log=log)
        axes.set(
            xlabel=_axis(label), ylabel="% of examples", ylim=(0, 1.08 * widest or 1)
        )
        axes.grid(axis="y")
        legend(drawn.figure, 2)
    return drawn.png


def relation(
    first: np.ndarray,
    second: np.ndarray,
    labels: tuple[str, str],
    *,
    logs: tuple[bool, bool],
) -> bytes:
    """Returns two numbers against each other, by how many examples have them."""
    with drawing(HALF, 3.4) as drawn:
        axes = drawn.axes
        found = axes.hexbin(
            first,
            second,
            gridsize=(44, 24),
            mincnt=1,
            bins="log",
            xscale="log" if logs[0] else "linear",
            yscale="log" if logs[1] else "linear",
            cmap=blues(),
            linewidths=0.1,
        )
        plain(axes.xaxis)
        plain(axes.yaxis)
        axes.set(xlabel=_axis(labels[0]), ylabel=_axis(labels[1]))
        axes.grid()
        bar = drawn.figure.colorbar(found, ax=axes, pad=0.02, aspect=28)
        bar.set_label("examples")
        plain(bar.ax.yaxis)
        bar.outline.set_visible(False)
    return drawn.png


def boxes(
    names: Sequence[str],
    sizes: Sequence[int],
    quantiles: np.ndarray,
    label: str,
    overall: float,
    *,
    log: bool,
) -> bytes:
    """Returns a row for each group: its middle half, 5 to 95 %, and median.

    Args:
        names: Of the groups, from above.
        sizes: How many examples each has.
        quantiles: Rows of 5, 25, 50, 75 and 95 %.
        label: Of the horizontal axis, with its unit.
        overall: The median of all examples.
        log: Whether the horizontal axis is logarithmic.
    """
    with drawing(WIDTH, 0.95 + 0.27 * len(names)) as drawn:
        axes = drawn.axes
        rows = np.arange(len(names))
        low, first, middle, third, high = quantiles.T
        axes.axvline(overall, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.hlines(rows, low, high, color=GREY, linewidth=1)
        axes.barh(rows, third - first, left=first, height=0.56, color=LIGHT)
        axes.vlines(middle, rows - 0.28, rows + 0.28, color=BLUE, linewidth=2)
        ticks = [
            f"{short(name)}  ({size:,})"
            for name, size in zip(names, sizes, strict=True)
        ]
        axes.set_yticks(rows, ticks)
        if log:
            axes.set_xscale("log")
        axes.use_sticky_edges = False  # a mark at the end is not cut in half
        axes.autoscale_view()
        plain(axes.xaxis)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set(xlabel=_axis(label))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return drawn.png


def intervals(
    names: Sequence[str],
    sizes: Sequence[int],
    rates: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    overall: float,
    label: str,
) -> bytes:
    """Returns a row for each group: a share in per cent, and how sure it is."""
    with drawing(WIDTH, 0.95 + 0.27 * len(names)) as drawn:
        axes = drawn.axes
        rows = np.arange(len(names))
        axes.axvline(overall, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.hlines(rows, low, high, color=LIGHT, linewidth=5)
        axes.plot(rates, rows, "o", color=BLUE, markersize=5)
        ticks = [
            f"{short(name)}  ({size:,})"
            for name, size in zip(names, sizes, strict=True)
        ]
        axes.set_yticks(rows, ticks)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set(xlabel=_axis(label))
        axes.set_xlim(
            max(float(low.min()) - 2.0, -1.0), min(float(high.max()) + 2.0, 101.0)
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return drawn.png


def counts(numbers: Mapping[int, int], label: str, unit: str) -> bytes:
    """Returns bars of how many there are of each whole number."""
    with drawing(HALF, 2.4) as drawn:
        axes = drawn.axes
        axes.bar(list(numbers), list(numbers.values()), width=0.8, color=LIGHT)
        axes.set(xlabel=_axis(label), ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        plain(axes.yaxis)
    return drawn.png


def steps(
    at: np.ndarray,
    bands: Sequence[tuple[np.ndarray, np.ndarray]],
    lines: Mapping[str, np.ndarray],
    label: str,
    *,
    log: bool = False,
    from_zero: bool = False,
) -> bytes:
    """Returns numbers over steps.

    Args:
        at: The steps.
        bands: Pairs of a lower and an upper number, filled between, widest first.
        lines: Numbers by name; a name is shown where there are several.
        label: Of the vertical axis, with its unit.
        log: Whether the vertical axis is logarithmic.
        from_zero: Whether it begins at zero.
    """
    with drawing(HALF, 2.5) as drawn:
        axes = drawn.axes
        for (low, high), colour in zip(bands, ("#e3edf7", LIGHT), strict=False):
            axes.fill_between(at, low, high, color=colour, linewidth=0)
        for (name, values), colour in zip(lines.items(), SERIES, strict=False):
            dots = "." if len(at) <= 60 else ""
            axes.plot(at, values, dots + "-", color=colour, linewidth=1.3, label=name)
        if log:
            axes.set_yscale("log")
        plain(axes.yaxis)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.set(xlabel="step", ylabel=_axis(label))
        whole_steps(axes, at)
        axes.grid(axis="y")
        if len(lines) > 1:
            legend(drawn.figure, len(lines))
    return drawn.png


def shares(
    at: np.ndarray, names: Sequence[str], parts: Sequence[np.ndarray], label: str
) -> bytes:
    """Returns how a whole is made up, over steps; each part in per cent."""
    with drawing(WIDTH, 2.9) as drawn:
        axes = drawn.axes
        colours = [SERIES[i % len(SERIES)] for i in range(len(names))]
        axes.stackplot(
            at,
            *parts,
            labels=[short(name) for name in names],
            colors=colours,
            alpha=0.85,
            edgecolor="white",
            linewidth=0.5,
        )
        axes.set(xlabel="step", ylabel=_axis(label), ylim=(0, 100))
        whole_steps(axes, at)
        legend(drawn.figure, len(names))
    return drawn.png


def _axis(label: str) -> str:
    return short(label, _MAX_AXIS)
