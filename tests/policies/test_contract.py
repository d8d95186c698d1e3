from __future__ import annotations

import doctest
import importlib
from typing import get_args

import pytest
from pair_worlds import random_features

from curator.policies import (
    CCS,
    POLICIES,
    Dedup,
    Density,
    DomainQuota,
    FacilityLocation,
    Importance,
    Joint,
    KCenter,
    LogDet,
    Policy,
    Power,
    SelectiveBackprop,
    Sensitivity,
    Softmax,
    SoftRank,
    Stratified,
    TopK,
)
from curator.scores import PAIR_COSTS, SCORES, PairScoreName
from curator.testing import assert_policy_contract

PAIR_SCORE_NAMES: tuple[PairScoreName, ...] = get_args(PairScoreName)

VARIANTS: list[Policy] = [
    # What a backward pass costs has no default: it is to be measured.
    *(
        Importance(backward_ratio=2.0) if name == "importance" else policy()
        for name, policy in POLICIES.items()
    ),
    *(TopK(score=score) for score in SCORES),
    *(TopK(score=score, loss="softmax") for score in PAIR_SCORE_NAMES),
    *(
        policy(beta=beta, weights="horvitz_thompson")
        for policy in (Power, Softmax, SoftRank, SelectiveBackprop)
        for beta in (0.0, 1.0, 50.0)
    ),
    Power(score="hard_learner", loss="sigmoid"),
    Softmax(loss="softmax"),
    # Backward passes so costly that the draw is never uniform.
    Importance(backward_ratio=1e6, uniform_share=0.5),
    Importance(backward_ratio=1e6, score="hard_learner", loss="sigmoid"),
    SelectiveBackprop(ring_size=7, p_min=0.1),
    Stratified(weights="horvitz_thompson", num_strata=5, drop_highest=0.0),
    DomainQuota(quotas={"web": 3.0, "code": 1.0}, score="learnability"),
    DomainQuota(domain="source", score="easy_reference", loss="sigmoid"),
    *(Joint(score=score, num_chunks=3) for score in PAIR_SCORE_NAMES),
    *(Joint(loss=loss, num_chunks=3, temperature=0.0) for loss in PAIR_COSTS),
    Joint(num_chunks=1),
    KCenter(metric="euclidean", trim=0.1),
    KCenter(embeddings="learner.projection"),
    LogDet(score="learnability", quality=3.0),
    FacilityLocation(embeddings="learner.projection"),
    Sensitivity(metric="euclidean", num_clusters=3, weights="none"),
    Sensitivity(embeddings="learner.projection", distance_share=1.0, power=1.0),
    CCS(by="reference.loss", hard="low", weights="horvitz_thompson", num_strata=4),
    Dedup(keep="random", num_clusters=4),
    Dedup(keep="easy", embeddings="learner.projection"),
    Density(num_anchors=5, weights="horvitz_thompson"),
    Density(embeddings="learner.projection", bandwidth=2.0, num_anchors=0),
    Joint(num_chunks=24, temperature=0.2),
]


@pytest.mark.parametrize("policy", VARIANTS, ids=repr)
def test_policy_keeps_the_contract(policy):
    assert_policy_contract(policy, lambda num: random_features(policy.needs, num))


def test_policies_are_registered_under_their_names():
    assert list(POLICIES) == sorted(POLICIES)
    for name, policy in POLICIES.items():
        assert policy.name == name


@pytest.mark.parametrize(
    "name",
    [
        "ccs",
        "color",
        "dedup",
        "density",
        "domain_quota",
        "facility_location",
        "kcenter",
        "logdet",
        "sensitivity",
        "stratified",
        "topk",
        "uniform",
    ],
)
def test_documented_examples_run(name):
    results = doctest.testmod(importlib.import_module(f"curator.policies._{name}"))

    assert results.attempted > 0
    assert results.failed == 0
