"""Candidates with given scores, and exact laws of draws from them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from curator.policies import Policy
from curator.rng import Noise
from curator.types import Feature, Features, Selection

NOISE = Noise(seed=0, step=0)


def features_of(
    policy: Policy,
    scores: Sequence[float] | np.ndarray,
    *,
    memory: Sequence[float] = (),
    domains: Sequence[object] | np.ndarray = (),
) -> Features:
    """Features for which the policy's score, easy_reference too, is ``scores``."""
    values = np.asarray(scores, np.float64)
    features: dict[str, Feature] = {}
    for name in policy.needs:
        if name == "memory":
            features[name] = np.array(memory, np.float32).reshape(-1, 1)
        elif name.startswith("pool."):
            features[name] = np.asarray(domains)
        elif name == "reference.loss":
            alone = "learner.loss" not in policy.needs
            features[name] = -values if alone else np.zeros(len(values))
        else:
            features[name] = values
    return features


def select(
    policy: Policy,
    scores: Sequence[float] | np.ndarray,
    num_selected: int,
    *,
    noise: Noise = NOISE,
    ids: np.ndarray | None = None,
    memory: Sequence[float] = (),
    domains: Sequence[object] | np.ndarray = (),
) -> Selection:
    """What a policy chooses of candidates with these scores."""
    ids = np.arange(len(scores)) + 100 if ids is None else ids
    features = features_of(policy, scores, memory=memory, domains=domains)
    return policy.select(ids, features, num_selected, noise)


def draws(
    policy: Policy,
    scores: Sequence[float] | np.ndarray,
    num_selected: int,
    num_steps: int,
    *,
    domains: Sequence[object] | np.ndarray = (),
) -> list[Selection]:
    """Independent selections from the same candidates."""
    return [
        select(
            policy,
            scores,
            num_selected,
            noise=Noise(seed=3, step=step),
            domains=domains,
        )
        for step in range(num_steps)
    ]


def mean_weights(selections: Sequence[Selection], num_candidates: int) -> np.ndarray:
    """The mean weight of each candidate, 0 where not chosen, times B / K.

    Of an unbiased policy its expectation is 1 for every candidate. Comes with its
    standard error, in a second row.
    """
    found = np.zeros((len(selections), num_candidates))
    for row, selection in zip(found, selections, strict=True):
        row[selection.indices] = selection.weights
    found *= num_candidates / len(selections[0].indices)
    return np.array([found.mean(axis=0), found.std(axis=0) / np.sqrt(len(found))])


def plackett_luce(chances: np.ndarray, num_drawn: int) -> dict[tuple[int, ...], float]:
    """P(ordered draw) without replacement, each in proportion to what is left."""
    law: dict[tuple[int, ...], float] = {}
    for sequence in itertools.permutations(range(len(chances)), num_drawn):
        left, probability = float(chances.sum()), 1.0
        for drawn in sequence:
            probability *= chances[drawn] / left
            left -= float(chances[drawn])
        law[sequence] = probability
    return law
