"""The contract test fails for policies that break the contract."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
import pytest
from pair_worlds import random_features

from curator.policies import Joint, TopK, Uniform
from curator.rng import Noise
from curator.testing import assert_policy_contract
from curator.types import Features, Selection


class Honest:
    """Top-k by the learner's loss; the broken ones change one thing each."""

    needs = frozenset({"learner.loss"})
    policy = TopK(score="hard_learner")

    def select(
        self, ids: np.ndarray, features: Features, num_selected: int, noise: Noise
    ) -> Selection:
        return self.policy.select(ids, features, num_selected, noise)


class RepeatsAnExample(Honest):
    def select(self, ids, features, num_selected, noise):
        selection = super().select(ids, features, num_selected, noise)
        selection.indices[-1] = selection.indices[0]
        return selection


class ChoosesOneTooFew(Honest):
    def select(self, ids, features, num_selected, noise):
        return super().select(ids, features, num_selected - 1, noise)


class AcceptsAnyNumber(Honest):
    def select(self, ids, features, num_selected, noise):
        num_selected = min(max(num_selected, 1), len(ids))
        return super().select(ids, features, num_selected, noise)


class PrefersTheFirst(Honest):
    def select(self, ids, features, num_selected, noise):
        selection = super().select(ids, features, num_selected, noise)
        first = np.arange(num_selected)
        return dataclasses.replace(selection, indices=first)


class CarriesRandomness(Honest):
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def select(self, ids, features, num_selected, noise):
        noise = Noise(seed=int(self.rng.integers(1 << 30)), step=0)
        return Uniform().select(ids, features, num_selected, noise)


class WritesToItsInput(Honest):
    def select(self, ids, features, num_selected, noise):
        cast(np.ndarray, features["learner.loss"])[0] += 1
        return super().select(ids, features, num_selected, noise)


class InventsMissingFeatures(Honest):
    def select(self, ids, features, num_selected, noise):
        features = {"learner.loss": np.zeros(len(ids)), **features}
        return super().select(ids, features, num_selected, noise)


class TrustsNaN(Honest):
    def select(self, ids, features, num_selected, noise):
        losses = cast(np.ndarray, features.get("learner.loss", np.zeros(1)))
        finite = {"learner.loss": np.nan_to_num(losses, nan=9e9)}
        return super().select(ids, finite, num_selected, noise)


class HidesTheQuarantine(Honest):
    def select(self, ids, features, num_selected, noise):
        selection = super().select(ids, features, num_selected, noise)
        stats = {"num_quarantined": 0.0, "num_topped_up": 0.0}
        return dataclasses.replace(selection, stats=stats)


class WeighsWithNaN(Honest):
    def select(self, ids, features, num_selected, noise):
        selection = super().select(ids, features, num_selected, noise)
        weights = np.full(num_selected, np.nan, np.float32)
        return dataclasses.replace(selection, weights=weights)


def test_honest_policy_passes():
    assert_policy_contract(Honest(), lambda num: random_features(Honest.needs, num))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (RepeatsAnExample, "indices must be distinct"),
        (ChoosesOneTooFew, "indices must be 24 int64"),
        (AcceptsAnyNumber, "num_selected=0 must raise ValueError"),
        (PrefersTheFirst, "shuffling the candidates changed"),
        (CarriesRandomness, "missing 'learner.loss' must raise FeatureError"),
        (InventsMissingFeatures, "missing 'learner.loss' must raise FeatureError"),
        (TrustsNaN, "non-finite features were chosen"),
        (HidesTheQuarantine, r"stats\['num_quarantined'\] must be 32"),
        (WeighsWithNaN, "weights must be finite"),
    ],
)
def test_broken_policy_is_caught(policy, message):
    with pytest.raises(AssertionError, match=message):
        assert_policy_contract(policy(), lambda num: random_features(policy.needs, num))


def test_carried_randomness_is_caught():
    policy = CarriesRandomness()
    policy.needs = frozenset()

    with pytest.raises(AssertionError, match="two equal calls chose differently"):
        assert_policy_contract(policy, lambda num: {})


def test_writing_to_the_input_is_caught():
    with pytest.raises(ValueError, match="read-only"):
        assert_policy_contract(
            WritesToItsInput(), lambda num: random_features(Honest.needs, num)
        )


def test_sizes_may_fit_the_policy():
    policy = Joint(num_chunks=4)

    assert_policy_contract(
        policy,
        lambda num: random_features(policy.needs, num),
        super_batch_size=12,
        batch_size=4,
    )
