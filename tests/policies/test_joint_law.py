"""The law of the joint sampler against exact enumeration and a second sampler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pair_worlds import (
    DenseScores,
    exact_law,
    joint_score,
    learnability_matrix,
    noisy_world,
)

from curator.policies import Joint
from curator.policies._joint import draw_jointly
from curator.rng import Noise

NUM_SAMPLES = 2500


def sample(matrix, sizes, temperature=1.0, num=NUM_SAMPLES):
    ids = np.arange(len(matrix)) + 100
    return [
        frozenset(
            draw_jointly(
                DenseScores(matrix), ids, sizes, temperature, Noise(seed=7, step=step)
            ).tolist()
        )
        for step in range(num)
    ]


def chi_square(law, samples):
    counts = dict.fromkeys(law, 0)
    for drawn in samples:
        counts[drawn] += 1
    expected = {key: share * len(samples) for key, share in law.items()}
    return sum((counts[key] - mean) ** 2 / mean for key, mean in expected.items())


def random_matrix(num: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((num, num))


@pytest.mark.slow
def test_one_chunk_has_the_law_of_plackett_and_luce():
    matrix = random_matrix(5)
    weights = np.exp(matrix.diagonal())
    law = {}
    for i, j in itertools.combinations(range(5), 2):
        total = weights.sum()
        law[frozenset((i, j))] = weights[i] / total * weights[j] / (
            total - weights[i]
        ) + weights[j] / total * weights[i] / (total - weights[j])

    samples = sample(matrix, [2])

    assert sum(law.values()) == pytest.approx(1)
    assert chi_square(law, samples) < 27.9  # 99.9 %, 9 degrees of freedom


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "temperature"), [([2, 2], 1.0), ([1, 1, 2], 2.0)])
def test_chunks_have_the_law_of_the_enumeration(sizes, temperature):
    matrix = random_matrix(6)

    law = exact_law(matrix, sizes, temperature)

    assert sum(law.values()) == pytest.approx(1)
    samples = sample(matrix, sizes, temperature)
    assert chi_square(law, samples) < 36.1  # 99.9 %, 14 degrees of freedom


@pytest.mark.slow
def test_another_law_is_told_apart():
    # Otherwise the tests above could not fail: one direction only, no joint terms.
    matrix = random_matrix(6)
    one_direction = np.triu(matrix) + np.triu(matrix, 1)
    independent = np.diag(matrix.diagonal())
    samples = sample(matrix, [2, 2])

    for other in (one_direction, independent):
        assert chi_square(exact_law(other, [2, 2]), samples) > 100


@pytest.mark.slow
def test_zero_scores_draw_every_example_and_every_pair_equally_often():
    num, num_drawn, num_samples = 12, 4, 1500
    singles, pairs = np.zeros(num), np.zeros((num, num))

    for chosen in sample(np.zeros((num, num)), [2, 2], num=num_samples):
        members = sorted(chosen)
        singles[members] += 1
        pairs[np.ix_(members, members)] += 1

    share = num_drawn / num
    expected = num_samples * share
    deviation = ((singles - expected) ** 2).sum() / expected / (1 - share) * 11 / 12
    assert deviation < 31.3  # 99.9 % of chi-square with 11 degrees of freedom
    share = num_drawn * (num_drawn - 1) / (num * (num - 1))
    counts = pairs[np.triu_indices(num, 1)]
    deviations = (counts - num_samples * share) / np.sqrt(
        num_samples * share * (1 - share)
    )
    assert np.abs(deviations).max() < 4.5


def heat_bath(matrix, num_drawn, num_moves, rng):
    """Single-site Gibbs sampling of batches with weight exp(joint score)."""
    chosen = rng.permutation(len(matrix))[:num_drawn]
    both = matrix + matrix.T
    given = both[:, chosen].sum(axis=1)
    for move in range(num_moves):
        place = move % num_drawn
        given -= both[:, chosen[place]]
        logits = matrix.diagonal() + given
        logits[np.delete(chosen, place)] = -np.inf
        chosen[place] = np.argmax(logits + rng.gumbel(size=len(matrix)))
        given += both[:, chosen[place]]
    return chosen


@pytest.mark.slow
def test_sixteen_chunks_reach_what_thousands_of_single_moves_reach():
    scores = {"joint": [], "short": [], "long": [], "uniform": []}
    for seed in range(3):
        features, _ = noisy_world(seed=seed, num=320, scale=20.0)
        matrix = learnability_matrix(features)
        rng = np.random.default_rng(seed)
        noise = Noise(seed=seed, step=0)
        chosen = {
            "joint": Joint().select(np.arange(320), features, 64, noise).indices,
            "short": heat_bath(matrix, 64, 64, rng),
            "long": heat_bath(matrix, 64, 4000, rng),
            "uniform": rng.permutation(320)[:64],
        }
        for name, indices in chosen.items():
            scores[name].append(joint_score(matrix, indices) / 64)
    means = {name: np.mean(values) for name, values in scores.items()}

    assert means["uniform"] < means["short"]
    gained = (means["joint"] - means["uniform"]) / (means["long"] - means["uniform"])
    assert gained > 0.9
    assert means["joint"] > means["short"]


def test_more_chunks_give_better_batches():
    counts = (1, 2, 4, 16, 64)
    means = dict.fromkeys(counts, 0.0)
    for seed in range(4):
        features, _ = noisy_world(seed=seed, num=320, scale=20.0)
        matrix = learnability_matrix(features)
        for num_chunks in counts:
            policy = Joint(num_chunks=num_chunks)
            noise = Noise(seed=seed, step=1)
            selection = policy.select(np.arange(320), features, 64, noise)
            means[num_chunks] += joint_score(matrix, selection.indices) / 64 / 4

    for fewer, more in itertools.pairwise(counts):
        assert means[more] > means[fewer] - 0.1  # sampling error of the mean
    assert means[16] > means[1] + 1
