from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import draws, mean_weights, select

from curator.errors import FeatureError
from curator.policies import Importance
from curator.policies._importance import decayed_mean, mixed_shares, tau_of

SCORES = np.array([0.1, 0.4, 4.0, 0.2, 0.3, 0.5])
ALWAYS = Importance(backward_ratio=1e9)  # a backward pass so dear that all else pays
NEVER = Importance(backward_ratio=0.0)  # 1 + B / K, above sqrt(B) for small K


def capped(shares, total):
    """min(1, level * share), the level found by bisection."""
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        low, high = (
            (level, high)
            if np.minimum(1, level * shares).sum() < total
            else (low, level)
        )
    return np.minimum(1, high * shares)


def test_weights_are_the_inverse_of_the_exact_inclusion_chances():
    chances = capped(mixed_shares(SCORES, 0.001), 3)

    for selection in draws(ALWAYS, SCORES, 3, 20):
        assert selection.stats["is_importance"] == 1
        assert 2 in selection.indices  # its chance is 1
        np.testing.assert_allclose(
            selection.weights, 3 / 6 / chances[selection.indices], rtol=1e-5
        )


@pytest.mark.slow
def test_weights_make_every_candidate_count_once():
    mean, error = mean_weights(draws(ALWAYS, SCORES, 3, 800), 6)

    assert (np.abs(mean - 1) <= 4 * error + 1e-6).all()
    assert (error < 0.2).all()


def test_batch_mean_is_nearly_exact_where_scores_are_the_gradients():
    # Every w g is then the same: no variance at all, but for the uniform share.
    gradients = np.linspace(1, 3, 12)
    policy = Importance(backward_ratio=1e9, uniform_share=1e-6)

    means = [
        float((selection.weights * gradients[selection.indices]).mean())
        for selection in draws(policy, gradients, 4, 20)
    ]

    np.testing.assert_allclose(means, gradients.mean(), rtol=1e-5)


def test_below_the_threshold_the_batch_is_uniform():
    counts = np.zeros(6)

    for selection in draws(NEVER, SCORES, 1, 300):
        assert selection.stats["is_importance"] == 0
        assert selection.weights.tolist() == [1]
        counts[selection.indices] += 1

    assert ((counts - 50) ** 2 / 50).sum() < 20.5  # 99.9 %, 5 degrees of freedom


@pytest.mark.parametrize(
    ("backward_ratio", "num_selected", "threshold"),
    # idiap's (B + 3 b) / (3 b), 2 for B = 3 b, assumes a backward pass of two forward.
    [(2.0, 2, 2.0), (2.0, 3, 1 + 6 / 9), (1.43, 2, 1 + 6 / (2 * 2.43))],
)
def test_threshold_weighs_scoring_against_training(
    backward_ratio, num_selected, threshold
):
    policy = Importance(backward_ratio=backward_ratio)

    stats = select(policy, SCORES, num_selected).stats

    assert stats["tau_threshold"] == pytest.approx(threshold)


def paper_tau(shares):
    gap = ((shares - 1 / len(shares)) ** 2).sum() / (shares**2).sum()
    return 1 / math.sqrt(1 - gap)


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_tau_is_the_formula_of_the_paper(scores):
    shares = np.array(scores) / sum(scores)

    tau = tau_of(shares)

    assert tau == pytest.approx(paper_tau(shares), rel=1e-6)
    assert 1 - 1e-9 <= tau <= math.sqrt(len(scores)) * (1 + 1e-9)


def test_tau_squared_is_the_ratio_of_variances():
    # Of one draw by chances in proportion to g, against a uniform one; second moments,
    # as in the paper.
    gradients = np.array([1.0, 2.0, 5.0])
    shares = gradients / gradients.sum()
    uniform = (gradients**2).mean()
    weighted = (shares * (gradients / (3 * shares)) ** 2).sum()

    assert tau_of(shares) ** 2 == pytest.approx(uniform / weighted)


def test_tau_at_its_ends():
    assert tau_of(np.full(9, 1 / 9)) == pytest.approx(1)
    assert tau_of(np.eye(9)[0]) == pytest.approx(3)


def test_equal_values_have_the_decayed_mean_from_the_first_on():
    assert decayed_mean(np.array([2.0])) == 2
    assert decayed_mean(np.full(30, 2.0)) == pytest.approx(2)
    assert decayed_mean(np.array([1.0, 0.0])) == pytest.approx(0.9 / 1.9)


def test_past_steps_hold_importance_back_or_up():
    policy = Importance(backward_ratio=2.0)
    one_hot, flat = [1.0, *[0.0] * 35], [1.0] * 36  # tau 6 and 1, threshold 2

    def is_importance(scores, memory):
        return select(policy, scores, 12, memory=memory).stats["is_importance"]

    assert is_importance(one_hot, []) == 1
    assert is_importance(one_hot, [1.0] * 64) == 0
    assert is_importance(flat, []) == 0
    assert is_importance(flat, [6.0] * 64) == 1
    assert policy.memory_rows == 64


def test_what_is_older_than_the_memory_is_not_read():
    recent = [2.0] * 63

    first = select(ALWAYS, SCORES, 2, memory=[5.0, 5.0, *recent])
    second = select(ALWAYS, SCORES, 2, memory=recent)

    assert first.stats == second.stats


def test_remembers_tau_of_this_step_and_not_the_mean():
    selection = select(ALWAYS, SCORES, 2, memory=[1.0, 1.0])

    assert selection.remember is not None
    assert selection.remember.tolist() == [[np.float32(selection.stats["tau"])]]
    assert selection.stats["tau_mean"] < selection.stats["tau"]


def test_all_zero_scores_are_uniform():
    selection = select(ALWAYS, np.zeros(6), 3)

    assert selection.stats["tau"] == pytest.approx(1)
    np.testing.assert_allclose(selection.weights, 1)


def test_weights_have_a_ceiling():
    policy = Importance(backward_ratio=1e9, uniform_share=0.01)
    scores = [0.0] * 99 + [1.0]

    weights = [selection.weights.max() for selection in draws(policy, scores, 50, 10)]

    assert max(weights) <= 100 * (1 + 1e-6)


def test_scores_at_the_ends_of_the_floats_are_drawn_by():
    for scale in (5e-324, 1e-300, 8e307):
        selection = select(ALWAYS, np.array([1.0, 2.0, 1.0, 2.0]) * scale, 2)
        assert np.isfinite(selection.weights).all()
        assert selection.stats["tau"] == pytest.approx(10**0.5 / 3, rel=1e-2)


def test_nothing_usable_is_topped_up_and_remembers_nothing():
    selection = select(ALWAYS, np.full(4, np.nan), 2)

    assert selection.weights.tolist() == [1, 1]
    assert selection.remember is not None
    assert selection.remember.shape == (0, 1)


def test_draw_does_not_depend_on_positions():
    ids = np.random.default_rng(0).permutation(1000)[:6]
    order = np.random.default_rng(1).permutation(6)

    first = select(ALWAYS, SCORES, 3, ids=ids)
    second = select(ALWAYS, SCORES[order], 3, ids=ids[order])

    assert ids[first.indices].tolist() == ids[order][second.indices].tolist()
    assert first.weights.tolist() == second.weights.tolist()


def test_steps_draw_differently():
    chosen = {
        tuple(selection.indices.tolist()) for selection in draws(ALWAYS, SCORES, 3, 10)
    }

    assert len(chosen) > 3


def test_negative_scores_are_an_error():
    with pytest.raises(FeatureError, match="'grad_norm' must be at least 0"):
        select(ALWAYS, [1.0, -1.0], 1)
    with pytest.raises(ValueError, match="which can be below 0"):
        Importance(backward_ratio=2.0, score="learnability")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan])
def test_uniform_share_must_be_a_share(share):
    with pytest.raises(ValueError, match=r"uniform_share must be above 0, .*; got"):
        Importance(backward_ratio=2.0, uniform_share=share)


@pytest.mark.parametrize("ratio", [-1.0, math.nan, math.inf])
def test_backward_ratio_must_be_a_ratio(ratio):
    with pytest.raises(ValueError, match="backward_ratio must be finite"):
        Importance(backward_ratio=ratio)


def test_backward_ratio_has_no_default():
    with pytest.raises(TypeError, match="backward_ratio"):
        Importance()  # pyright: ignore[reportCallIssue]
