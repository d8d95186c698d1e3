"""Power, softmax and softrank: their laws, what changes nothing, and their weights."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import NOISE, draws, mean_weights, select

from curator.errors import FeatureError
from curator.policies import Power, Softmax, SoftRank, TopK
from curator.rng import Noise

SCORES = np.array([0.5, 2.0, 1.0, 3.0, 0.25])
RANKS = np.array([4, 2, 3, 1, 5])
HEADS = [Power, Softmax, SoftRank]

unequal_scores = st.lists(
    st.integers(1, 10_000), min_size=4, max_size=30, unique=True
).map(lambda values: np.array(values) / 1000)


LAWS = [
    (Power(beta=1.0), SCORES),
    (Power(beta=2.0), SCORES**2),
    (Power(beta=0.0), np.ones(5)),
    (Softmax(beta=1.0), np.exp(SCORES)),
    (Softmax(beta=0.5), np.exp(0.5 * SCORES)),
    (Softmax(beta=0.0), np.ones(5)),
    (SoftRank(beta=1.0), 1 / RANKS),
    (SoftRank(beta=2.0), 1.0 / RANKS**2),
    (SoftRank(beta=0.0), np.ones(5)),
]


@pytest.mark.parametrize(("policy", "chances"), LAWS, ids=repr)
def test_chances_of_each_draw_are_those_of_the_paper(policy, chances):
    # The draw itself has its law tested; here, that these are its chances.
    policy = dataclasses.replace(policy, weights="horvitz_thompson")
    for seed in range(10):
        noise = Noise(seed=seed, step=1)
        logits = np.log(chances)
        keys = logits + noise.gumbel(np.arange(5) + 100)
        order = np.argsort(-keys)
        drawn, missed = order[:3], keys[order[3]]

        selection = select(policy, SCORES, 3, noise=noise)

        np.testing.assert_array_equal(selection.indices, drawn)
        inclusion = 1 - np.exp(-np.exp(logits[drawn] - missed))
        np.testing.assert_allclose(selection.weights, 3 / 5 / inclusion, rtol=1e-6)


def test_large_scores_leave_softmax_its_noise():
    # Beside 2^52 the noise would be rounded to quarters.
    for seed in range(10):
        noise = Noise(seed=seed, step=0)
        small, large = (
            select(Softmax(beta=0.5), np.arange(12) + shift, 6, noise=noise).indices
            for shift in (0.0, 2.0**52)
        )
        np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize("head", HEADS)
def test_beta_of_zero_is_one_draw_whatever_the_scores(head):
    scores = np.array([0.0, 1e300, 1.0, 3.0, 0.0])

    one, other = (select(head(beta=0.0), given, 3) for given in (scores, np.ones(5)))

    np.testing.assert_array_equal(one.indices, other.indices)


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=25)
@given(scores=unequal_scores)
def test_large_beta_takes_the_highest_in_order(head, scores):
    best = select(TopK(score="loss"), scores, 3)

    selection = select(head(beta=1e7), scores, 3)

    np.testing.assert_array_equal(selection.indices, best.indices)


@settings(max_examples=25)
@given(scores=unequal_scores, factor=st.sampled_from([1e-300, 2.0**-9, 8.0, 1e200]))
def test_power_is_invariant_under_positive_factors(scores, factor):
    policy = Power(weights="horvitz_thompson")

    first, second = select(policy, scores, 3), select(policy, scores * factor, 3)

    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_allclose(first.weights, second.weights, rtol=1e-6)


@settings(max_examples=25)
@given(scores=unequal_scores, shift=st.sampled_from([-4096.0, -0.5, 2.0, 1024.0]))
def test_softmax_is_invariant_under_shifts(scores, shift):
    policy = Softmax(weights="horvitz_thompson")

    first, second = select(policy, scores, 3), select(policy, scores + shift, 3)

    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_allclose(first.weights, second.weights, rtol=1e-6)


@settings(max_examples=25)
@given(
    scores=unequal_scores,
    increasing=st.sampled_from([np.log, np.exp, lambda x: x**3, lambda x: 5 * x - 9]),
)
def test_softrank_is_invariant_under_increasing_maps(scores, increasing):
    policy = SoftRank(weights="horvitz_thompson")

    first, second = select(policy, scores, 3), select(policy, increasing(scores), 3)

    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.weights, second.weights)


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=25)
@given(scores=unequal_scores, data=st.data())
def test_a_higher_score_never_makes_an_example_leave(head, scores, data):
    chosen = select(head(), scores, 3).indices
    raised = scores.copy()
    raised[data.draw(st.sampled_from(chosen.tolist()))] *= 1.5

    # Of softrank too: those it overtakes get worse.
    kept = int(np.flatnonzero(raised != scores)[0])
    assert kept in select(head(), raised, 3).indices


@pytest.mark.slow
def test_weights_make_every_candidate_count_once():
    selections = draws(Power(weights="horvitz_thompson"), SCORES, 3, 600)

    mean, error = mean_weights(selections, 5)

    assert (np.abs(mean - 1) < 4 * error).all()
    assert (error < 0.15).all()


def test_without_weights_high_scores_count_more():
    mean, error = mean_weights(draws(Power(), SCORES, 3, 200), 5)

    assert mean[3] > 1 + 5 * error[3]
    assert mean[4] < 1 - 5 * error[4]


def test_softmax_of_huge_scores_is_drawn_from():
    scores = np.array([1e308, -1e308, 1e308, 0.0])

    selection = select(Softmax(beta=1e3), scores, 4)

    assert set(selection.indices[:2].tolist()) == {0, 2}


def test_power_never_prefers_a_score_of_zero():
    scores = np.array([0.0, 1e-300, 0.0, 1.0, 0.0])

    for selection in draws(Power(weights="horvitz_thompson"), scores, 3, 5):
        assert {1, 3} == set(selection.indices[:2].tolist())
        np.testing.assert_allclose(selection.weights, [0.6, 0.6, 1.8], rtol=1e-6)


def test_power_takes_what_rounded_below_zero_as_zero():
    selection = select(Power(), [-1e-7, 1.0, 2.0], 2)

    assert set(selection.indices.tolist()) == {1, 2}


def test_power_refuses_negative_scores():
    with pytest.raises(
        FeatureError, match=r"score 'loss' must be at least 0 .*got -0\.5\..*softrank"
    ):
        select(Power(), [1.0, -0.5, 2.0], 2)


@pytest.mark.parametrize("score", ["learnability", "easy_reference"])
def test_power_refuses_scores_that_are_differences(score):
    with pytest.raises(
        ValueError, match=rf"one of entropy, .* got '{score}', which can be below 0"
    ):
        Power(score=score)


def test_power_refuses_softmax_costs():
    with pytest.raises(ValueError, match=r"'scalar' or 'sigmoid' .* got 'softmax'"):
        Power(score="hard_learner", loss="softmax")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_beta_must_be_finite_and_not_negative(head, beta):
    with pytest.raises(ValueError, match="beta must be finite and at least 0; got"):
        head(beta=beta)


def test_equal_scores_share_the_chances_of_their_ranks():
    scores, ranks = np.array([9.0, 5.0, 5.0, 1.0]), np.array([1, 2.5, 2.5, 4])

    for seed in range(5):
        noise = Noise(seed=seed, step=0)
        keys = noise.gumbel(np.arange(4) + 100) - np.log(ranks)
        chosen = select(SoftRank(), scores, 3, noise=noise).indices
        np.testing.assert_array_equal(chosen, np.argsort(-keys)[:3])


def test_scores_of_the_chosen_are_those_that_were_given():
    selection = select(Softmax(), SCORES, 4)

    np.testing.assert_array_equal(selection.scores, SCORES[selection.indices])
    assert selection.stats["score_mean"] == SCORES[selection.indices].mean()


def test_only_the_step_decides():
    first, again = (select(Power(), SCORES, 2, noise=NOISE) for _ in range(2))

    np.testing.assert_array_equal(first.indices, again.indices)
