from __future__ import annotations

import doctest
import importlib

import pytest
from pair_worlds import random_features

from curator.policies import POLICIES, Joint, Policy, TopK
from curator.scores import PAIR_SCORES, SCORES
from curator.testing import assert_policy_contract

VARIANTS: list[Policy] = [
    *(policy() for policy in POLICIES.values()),
    *(TopK(score=score, loss="softmax") for score in SCORES),
    *(Joint(score=score, num_chunks=3) for score in SCORES),
    *(Joint(loss=loss, num_chunks=3, temperature=0.0) for loss in PAIR_SCORES),
    Joint(num_chunks=1),
    Joint(num_chunks=24, temperature=0.2),
]


@pytest.mark.parametrize("policy", VARIANTS, ids=repr)
def test_policy_keeps_the_contract(policy):
    assert_policy_contract(policy, lambda num: random_features(policy.needs, num))


def test_policies_are_registered_under_their_names():
    assert list(POLICIES) == sorted(POLICIES)
    for name, policy in POLICIES.items():
        assert policy.name == name


@pytest.mark.parametrize("name", ["policies._topk", "policies._uniform", "testing"])
def test_documented_examples_run(name):
    results = doctest.testmod(importlib.import_module(f"curator.{name}"))

    assert results.attempted > 0
    assert results.failed == 0
