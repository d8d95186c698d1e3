from __future__ import annotations

import numpy as np
import pytest
from pair_worlds import scores_of

from curator.errors import FeatureError
from curator.policies import Color, TopK
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)
RNG = np.random.default_rng(0)
LOSSES = {
    "learner.loss": RNG.gamma(2.0, size=50),
    "reference.loss": RNG.gamma(2.0, size=50),
}
IDS = np.arange(50) * 3


def test_score_is_the_prior_less_the_conditional_loss():
    selection = Color().select(IDS, LOSSES, 10, NOISE)

    scores = LOSSES["learner.loss"] - LOSSES["reference.loss"]
    np.testing.assert_array_equal(selection.indices, np.argsort(-scores)[:10])
    np.testing.assert_array_equal(scores_of(selection), np.sort(scores)[::-1][:10])


def test_it_is_learnability_with_the_prior_as_learner():
    color = Color().select(IDS, LOSSES, 20, NOISE)
    learnability = TopK(score="learnability").select(IDS, LOSSES, 20, NOISE)

    np.testing.assert_array_equal(color.indices, learnability.indices)


def test_swapped_models_negate_scores():
    swapped = Color(prior="reference.loss", conditional="learner.loss")

    forward = scores_of(Color().select(IDS, LOSSES, 50, NOISE))
    backward = scores_of(swapped.select(IDS, LOSSES, 50, NOISE))

    np.testing.assert_array_equal(forward, -backward[::-1])


def test_columns_of_the_pool_will_do():
    policy = Color(prior="pool.nll_prior", conditional="pool.nll_target")
    features = {
        "pool.nll_prior": np.array([1.0, 1.0, np.nan]),
        "pool.nll_target": np.array([0.9, 0.1, 0.0]),
    }

    selection = policy.select(np.arange(3), features, 2, NOISE)

    assert policy.needs == frozenset(features)
    np.testing.assert_array_equal(selection.indices, [1, 0])
    assert selection.stats["num_quarantined"] == 1


def test_a_target_in_a_mixed_pool_is_found():
    rng = np.random.default_rng(1)
    is_target = rng.random(2000) < 0.05
    prior = rng.gamma(9.0, 0.3, 2000)
    features = {
        "learner.loss": prior,
        "reference.loss": prior
        - np.where(is_target, 0.5, 0.0)
        + rng.normal(0, 0.2, 2000),
    }

    chosen = Color().select(np.arange(2000), features, 250, NOISE).indices

    assert is_target[chosen].mean() > 5 * is_target.mean()


def test_losses_of_another_shape_are_refused():
    with pytest.raises(FeatureError, match="one float per candidate"):
        Color().select(IDS[:3], LOSSES, 2, NOISE)


@pytest.mark.parametrize("field", ["prior", "conditional"])
def test_a_name_that_nothing_computes_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be the name of a feature"):
        Color(**{field: "nll"})
