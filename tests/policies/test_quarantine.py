from __future__ import annotations

import numpy as np
from pair_worlds import scores_of

from curator.policies._quarantine import complete
from curator.rng import Noise


def select_of(chosen, usable, num_selected, *, step=0, stats=None):
    return complete(
        np.array(chosen, np.int64),
        np.arange(len(chosen), dtype=np.float64),
        usable=np.array(usable, bool),
        ids=np.arange(100, 100 + len(usable)),
        num_selected=num_selected,
        noise=Noise(seed=0, step=step),
        stats=stats or {},
    )


def test_nothing_is_added_to_a_full_selection():
    selection = select_of([3, 1], [True, True, False, True], 2, stats={"extra": 1.5})

    assert selection.indices.tolist() == [3, 1]
    assert selection.weights.tolist() == [1, 1]
    assert scores_of(selection).tolist() == [0, 1]
    assert selection.stats == {
        "num_quarantined": 1,
        "num_topped_up": 0,
        "score_mean": 0.5,
        "extra": 1.5,
    }


def test_missing_examples_come_last_and_have_no_score():
    selection = select_of([2, 1], [False, True, True, False], 4)

    assert selection.indices[:2].tolist() == [2, 1]
    assert sorted(selection.indices[2:]) == [0, 3]
    np.testing.assert_array_equal(scores_of(selection), [0, 1, np.nan, np.nan])
    assert selection.stats["num_quarantined"] == 2
    assert selection.stats["num_topped_up"] == 2


def test_mean_score_is_left_out_where_nothing_was_ranked():
    selection = select_of([], [False, False, False], 2)

    assert selection.stats == {"num_quarantined": 3, "num_topped_up": 2}


def test_topping_up_is_uniform():
    usable = [True] + [False] * 6
    counts = np.zeros(7)

    for step in range(900):
        counts[select_of([0], usable, 3, step=step).indices[1:]] += 1

    expected = 900 * 2 / 6
    assert counts[0] == 0
    chi_square = ((counts[1:] - expected) ** 2 / (expected * (1 - 2 / 6))).sum() * 5 / 6
    assert chi_square < 20.5  # 99.9 % of chi-square with 5 degrees of freedom


def test_topped_up_examples_have_weight_one():
    selection = complete(
        np.array([2, 0]),
        np.array([5.0, 4.0]),
        usable=np.array([True, False, True, False]),
        ids=np.arange(4),
        num_selected=3,
        noise=Noise(seed=0, step=0),
        stats={},
        weights=np.array([0.25, 8.0]),
        remember=np.ones((2, 1), np.float32),
    )

    assert selection.weights.tolist() == [0.25, 8, 1]
    assert selection.remember.tolist() == [[1], [1]]


def test_what_is_ranked_by_nothing_has_no_scores():
    selection = complete(
        np.array([2, 0]),
        None,
        usable=np.array([True, False, True]),
        ids=np.arange(3),
        num_selected=3,
        noise=Noise(seed=0, step=0),
        stats={},
    )

    assert selection.scores is None
    assert "score_mean" not in selection.stats


def test_mean_of_large_scores_is_finite():
    selection = complete(
        np.array([0, 1]),
        np.array([1.5e308, 1.5e308]),
        usable=np.ones(2, bool),
        ids=np.arange(2),
        num_selected=2,
        noise=Noise(seed=0, step=0),
        stats={},
    )

    assert selection.stats["score_mean"] == 1.5e308
