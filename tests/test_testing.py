"""The contract test fails for policies that break the contract."""

from __future__ import annotations

import dataclasses
import doctest
from typing import cast

import numpy as np
import pytest
from pair_worlds import random_features

from curator.errors import FeatureError
from curator.policies import DomainQuota, Joint, TopK, Uniform
from curator.rng import Noise
from curator.testing import _policies, _samplers, assert_policy_contract
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


class StumblesOverMissingFeatures(Honest):
    def select(self, ids, features, num_selected, noise):
        if not isinstance(features["learner.loss"], np.ndarray):
            raise AssertionError
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


class Remembering(Honest):
    """Ranks by the learner's loss, those below the remembered mean last."""

    needs = frozenset({"learner.loss", "memory"})
    memory_rows = 3

    def select(self, ids, features, num_selected, noise):
        if "memory" not in features:
            raise FeatureError("the policy needs the feature 'memory'")
        memory = cast(np.ndarray, features["memory"])
        losses = cast(np.ndarray, features.get("learner.loss", np.ones(0)))
        if len(losses) and len(memory):
            losses = np.where(losses < memory.mean(), losses - 1e3, losses)
            features = {"learner.loss": losses}
        selection = super().select(ids, features, num_selected, noise)
        return dataclasses.replace(selection, remember=self.rows(losses))

    def rows(self, losses: np.ndarray) -> np.ndarray | None:
        return np.full((1, 1), np.nanmax(losses), np.float32)


class HidesItsMemoryRows(Remembering):
    memory_rows = property()  # raises AttributeError


class RemembersNothing(Remembering):
    def rows(self, losses):
        return None


class RemembersPositions(Remembering):
    def rows(self, losses):
        return losses[:2, None].astype(np.float32)


class RemembersWiderRows(Remembering):
    def rows(self, losses):
        return np.ones((1, 4), np.float32)


class RemembersNaN(Remembering):
    def rows(self, losses):
        return np.full((1, 1), np.nan, np.float32)


class RemembersUnasked(Remembering):
    needs = Honest.needs
    memory_rows = property()

    def select(self, ids, features, num_selected, noise):
        selection = Honest.select(self, ids, features, num_selected, noise)
        return dataclasses.replace(selection, remember=np.ones((1, 1), np.float32))


def test_policy_with_memory_passes():
    assert_policy_contract(
        Remembering(), lambda num: random_features(Remembering.needs, num)
    )


def test_labels_of_the_pool_are_left_alone():
    policy = DomainQuota(score="loss")

    assert_policy_contract(policy, lambda num: random_features(policy.needs, num))


def test_memory_that_is_no_rows_is_an_error():
    def features(num):
        return {**random_features(Honest.needs, num), "memory": np.ones(4, np.float32)}

    with pytest.raises(AssertionError, match=r"an array of shape \(rows, width"):
        assert_policy_contract(Remembering(), features)


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
        (StumblesOverMissingFeatures, r"must raise FeatureError; got KeyError"),
        (TrustsNaN, "non-finite features were chosen"),
        (HidesTheQuarantine, r"stats\['num_quarantined'\] must be 32"),
        (WeighsWithNaN, "weights must be finite"),
        (HidesItsMemoryRows, "must say its memory_rows"),
        (RemembersNothing, "needs 'memory' must remember rows"),
        (RemembersPositions, "shuffling the candidates changed"),
        (RemembersWiderRows, r"shape \(rows, 1\).*; got float32 of shape \(1, 4\)"),
        (RemembersNaN, "remembered rows must be finite"),
        (RemembersUnasked, "got rows and no such need"),
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


@pytest.mark.parametrize("module", [_policies, _samplers])
def test_documented_example_runs(module):
    results = doctest.testmod(module)

    assert results.attempted > 0
    assert results.failed == 0
