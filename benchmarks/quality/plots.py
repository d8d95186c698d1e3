"""Plots: quality against device-seconds, every seed a thin line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.summary import Results, headline

__all__ = ["FAMILIES", "draw"]

# Arms that are drawn together, where a task has the first of them.
FAMILIES: dict[str, tuple[str, ...]] = {
    "leave examples out": (
        "full",
        "infobatch",
        "infobatch_no_rescale",
        "random_equal",
        "uniform_equal",
    ),
    "train on a tenth": ("rs2", "static_random", "static_k_center", "static_el2n"),
    "choose among candidates": (
        "rho",
        "rho_charged",
        "rho_cheap_charged",
        "selective_backprop",
        "selective_backprop_charged",
        "joint",
        "joint_charged",
        "easy_reference",
        "uniform",
        "uniform_rho_cost",
        "uniform_joint_cost",
    ),
    "choose among instructions": (
        "uds",
        "uniform",
        "max_loss",
        "max_loss_charged",
        "uds_charged",
        "uds_lengths",
        "uds_normalised",
    ),
}


def draw(results: Results, task: str, path: Path) -> None:
    """Writes a picture of a task, one panel per family of arms that it has."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = {
        family: present
        for family, arms in FAMILIES.items()
        if results.has(task, arms[0])
        and len(present := [arm for arm in arms if results.has(task, arm)]) > 1
    }
    width = 4.6 * len(panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 4.4), squeeze=False)
    for axis, (family, arms) in zip(axes[0], panels.items(), strict=True):
        lowest: list[float] = []
        for number, arm in enumerate(arms):
            lowest += _lines(axis, results, task, arm, f"C{number % 10}")
        # The start of training is the same for all, and would flatten the rest.
        axis.set_ylim(bottom=float(np.quantile(lowest, 0.15)))
        axis.set_title(family, fontsize=10)
        axis.set_xlabel("device-seconds: train + score + pick")
        axis.set_ylabel(results.headline(task))
        axis.grid(alpha=0.3)
        # Below: inside, it hides whichever arm ends there.
        axis.legend(
            fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3
        )
    figure.suptitle(task)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and the program's version, equal figures are equal files.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _lines(
    axis: Any, results: Results, task: str, arm: str, colour: str
) -> list[float]:
    """Draws every seed, and the mean of where they ended; returns the heights."""
    heights: list[float] = []
    ends: list[tuple[float, float]] = []
    for result in results.by[task, arm].values():
        name = headline(result)
        points = [(point["device"], point[name]) for point in result["curve"]]
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=0.6, alpha=0.6)
        heights += [height for _, height in points]
        ends.append(points[-1])
    axis.plot(*np.mean(ends, axis=0), "o", color=colour, label=arm)
    return heights
