"""Plots are PNG files, the same every time, of whatever numbers there are."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from curator.report import _figures as figures

RNG = np.random.default_rng(0)
STEPS = np.arange(10)
ODD = "コード\n\x00\ufdd0" + "x" * 99


def histogram(label: str = "loss (nats)") -> bytes:
    edges = np.linspace(0, 3, 21)
    return figures.histogram(
        edges, RNG.integers(1, 9, 20) * 0 + 5, label, {"median": 1.5}, log=False
    )


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_equal_numbers_are_equal_files_whatever_the_settings() -> None:
    before = histogram()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert histogram() == before
        assert mpl.rcParams["font.size"] == 30  # and they stay the user's


def test_labels_are_text_and_no_formula() -> None:
    assert histogram("cost in $ or $x^2$ \\frac") != histogram("cost in x")


@pytest.mark.parametrize(
    "png",
    [
        lambda: figures.histogram(
            np.geomspace(1e-6, 1e7, 9), np.zeros(8, int), "x", {"5 %": 1.0}, log=True
        ),
        lambda: figures.overlay(
            np.array([0.0, 1.0]),
            np.array([0]),
            np.array([0]),
            "x",
            ("a", "b"),
            log=False,
        ),
        lambda: figures.relation(
            np.ones(3), np.ones(3), ("a", "b"), logs=(True, False)
        ),
        lambda: figures.boxes(
            ["$x^$" * 20], [1], np.array([[1.0, 1, 1, 1, 1]]), "x", 1.0, log=False
        ),
        lambda: figures.intervals(
            ["a"],
            [3],
            np.array([100.0]),
            np.array([90.0]),
            np.array([100.0]),
            50.0,
            "x",
        ),
        lambda: figures.counts({0: 3, 1: 0}, "times", "examples"),
        lambda: figures.steps(
            STEPS[:1], [(np.zeros(1), np.ones(1))], {"a": np.ones(1)}, "y"
        ),
        lambda: figures.steps(STEPS, [], {"a": STEPS + np.nan}, "y"),
        lambda: figures.steps(
            STEPS, [], {"a": 10.0**STEPS, "b": 1.0 + STEPS}, "y", log=True
        ),
        lambda: figures.shares(
            STEPS, [str(i) for i in range(9)], [STEPS + 1.0] * 9, "y"
        ),
        lambda: figures.shares(STEPS, [ODD, ODD], [STEPS + 1.0] * 2, ODD),
        lambda: figures.boxes([ODD], [1], np.ones((1, 5)), ODD, 1.0, log=False),
        lambda: figures.relation(np.ones(3), np.ones(3), (ODD, ODD), logs=(True, True)),
        lambda: histogram(ODD),
    ],
)
def test_odd_numbers_and_names_are_drawn(png) -> None:
    width, height = size_of(png())

    assert width in (735, 1470)
    assert 150 < height < 1000
