"""What all policies with a score share: which scores of which losses, who is drawn."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import select

from curator.policies import (
    DomainQuota,
    Importance,
    Policy,
    Power,
    SelectiveBackprop,
    Softmax,
    SoftRank,
    Stratified,
    TopK,
)
from curator.policies._candidates import check_score, check_weights, score_needs
from curator.rng import Noise
from curator.scores import SCORES, PairScoreName

POLICIES: list[Policy] = [
    DomainQuota(score="loss"),
    Importance(backward_ratio=1e9, score="loss"),
    Importance(backward_ratio=0.0, score="loss"),
    *(
        head(score="loss", weights=weights)
        for head in (Power, SelectiveBackprop, Softmax, SoftRank, Stratified)
        for weights in ("none", "horvitz_thompson")
    ),
    TopK(score="loss"),
]

degenerate = st.sampled_from(
    [0.0, 1.0, 2.5, 1e-300, 1e300, math.nan, math.inf, -math.inf]
)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=20)
@given(data=st.data())
def test_any_scores_make_a_full_batch(policy, data):
    scores = np.array(data.draw(st.lists(degenerate, min_size=1, max_size=12)))
    num_selected = data.draw(st.integers(1, len(scores)))
    noise = Noise(seed=data.draw(st.integers(0, 20)), step=1)
    ids = np.random.default_rng(len(scores)).permutation(99)[: len(scores)]
    domains = np.where(ids % 2 == 0, "even", "odd")

    selection = select(
        policy, scores, num_selected, noise=noise, ids=ids, domains=domains
    )

    usable = np.isfinite(scores)
    num_usable = int(usable.sum())
    assert len(set(selection.indices.tolist())) == num_selected
    assert usable[selection.indices].sum() == min(num_usable, num_selected)
    assert np.isfinite(selection.weights).all()
    assert (selection.weights > 0).all()
    assert (selection.weights[~usable[selection.indices]] == 1).all()
    assert selection.stats["num_quarantined"] == len(scores) - num_usable
    assert selection.stats["num_topped_up"] == max(0, num_selected - num_usable)
    assert np.isfinite(list(selection.stats.values())).all()

    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = select(
        policy,
        scores[order],
        num_selected,
        noise=noise,
        ids=ids[order],
        domains=domains[order],
    )
    np.testing.assert_array_equal(ids[order][shuffled.indices], ids[selection.indices])
    np.testing.assert_array_equal(shuffled.weights, selection.weights)
    assert shuffled.stats == selection.stats


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_the_whole_super_batch_has_weights_of_one(policy):
    scores = np.random.default_rng(0).gamma(2.0, size=30)

    selection = select(policy, scores, 30, domains=["one"] * 30)

    np.testing.assert_allclose(selection.weights, 1, rtol=1e-6)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
@pytest.mark.parametrize("score", sorted(set(SCORES) - set(get_args(PairScoreName))))
def test_pair_losses_have_the_scores_of_jest_only(score, loss):
    with pytest.raises(
        ValueError,
        match=f"one of easy_reference, hard_learner, learnability where loss is "
        f"'{loss}'; got '{score}'",
    ):
        TopK(score=score, loss=loss)


@pytest.mark.parametrize("score", get_args(PairScoreName))
def test_pair_losses_have_those_of_jest(score):
    for loss in ("scalar", "sigmoid", "softmax"):
        check_score(score, loss)


def test_unknown_score_lists_all_there_are():
    with pytest.raises(ValueError, match=r"grad_norm, .*loss, nuclear_norm.*'rho'"):
        check_score("rho", "scalar")


def test_unknown_loss_lists_all_there_are():
    with pytest.raises(ValueError, match=r"one of scalar, .*; got 'hinge'"):
        check_score("loss", "hinge")


def test_unknown_weights_list_all_there_are():
    with pytest.raises(
        ValueError, match="one of none, horvitz_thompson; got 'inverse'"
    ):
        check_weights("inverse")


@pytest.mark.parametrize(
    ("score", "needs"),
    [
        ("loss", {"learner.loss"}),
        ("grad_norm", {"learner.grad_norm"}),
        ("entropy", {"learner.entropy"}),
        ("nuclear_norm", {"learner.nuclear_norm"}),
        ("learnability", {"learner.loss", "reference.loss"}),
    ],
)
def test_needs_the_features_of_its_score(score, needs):
    assert score_needs(score, "scalar") == needs


def test_needs_embeddings_of_a_pair_loss():
    assert score_needs("easy_reference", "sigmoid") == {"reference.embeddings"}


@pytest.mark.parametrize(
    "policy", [Importance(backward_ratio=2.0), SelectiveBackprop()], ids=repr
)
def test_policies_with_memory_need_it(policy):
    assert "memory" in policy.needs


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_identity_of_a_policy_is_its_fields(policy):
    assert repr(policy) == repr(dataclasses.replace(policy))


def test_constant_reference_loss_is_top_loss():
    losses = np.random.default_rng(0).gamma(2.0, size=20)
    features = {"learner.loss": losses, "reference.loss": np.full(20, 0.7)}
    ids, noise = np.arange(20), Noise(seed=0, step=0)

    learnability = TopK().select(ids, features, 5, noise)
    top_loss = TopK(score="loss").select(ids, features, 5, noise)

    np.testing.assert_array_equal(learnability.indices, top_loss.indices)
