"""Pairs to select from, and dense oracles of their joint scores and their law."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from curator.scores import JointScores
from curator.types import Feature, Features, PairEmbeddings, Selection


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_embeddings(
    rng: np.random.Generator,
    num: int,
    width: int = 8,
    *,
    scale: float = 10.0,
    bias: float | None = -5.0,
    dtype: type[np.floating] = np.float32,
) -> PairEmbeddings:
    """Pairs that lean towards their own target, so that positives stand out."""
    shared = rng.standard_normal((num, width))
    sides = [
        unit(shared + 0.8 * rng.standard_normal((num, width))).astype(dtype)
        for _ in range(2)
    ]
    return PairEmbeddings(sides[0], sides[1], scale, bias)


def random_features(needs: Collection[str], num: int, seed: int = 0) -> Features:
    """Finite features of any name a policy may need."""
    rng = np.random.default_rng(seed)
    features: dict[str, Feature] = {}
    width = 3 if "learner.projection" in needs else 1
    for name in sorted(needs):
        if name.endswith(".embeddings"):
            features[name] = random_embeddings(rng, num)
        elif name.endswith(".projection"):
            features[name] = rng.standard_normal((num, width)).astype(np.float32)
        elif name == "memory":
            features[name] = rng.gamma(2.0, size=(10, width)).astype(np.float32)
        elif name.startswith("pool."):
            features[name] = rng.choice(["books", "code", "web"], size=num)
        else:
            features[name] = rng.gamma(2.0, size=num).astype(np.float32)
    return features


def scores_of(selection: Selection) -> np.ndarray:
    assert selection.scores is not None
    return selection.scores


def noisy_world(
    seed: int, num: int, *, scale: float = 10.0
) -> tuple[dict[str, PairEmbeddings], np.ndarray]:
    """A clustered pool, half of it mismatched; a good reference, a raw learner.

    With a scale of 10 the negatives are far for both; with 20 the joint terms, not the
    pairs' own costs, decide.

    Returns the features and which pairs are mismatched.
    """
    rng = np.random.default_rng(seed)

    def blur(vectors: np.ndarray, noise: float) -> np.ndarray:
        return unit(vectors + noise * unit(rng.standard_normal(vectors.shape)))

    clusters = unit(rng.standard_normal((40, 32)))
    meaning = blur(clusters[rng.integers(len(clusters), size=num)], 0.7)
    mismatched = rng.random(num) < 0.5
    captions = meaning.copy()
    captions[mismatched] = captions[rng.permutation(np.flatnonzero(mismatched))]
    features = {
        model: PairEmbeddings(
            blur(meaning, noise).astype(np.float32),
            blur(captions, noise).astype(np.float32),
            logit_scale=scale,
            logit_bias=-10.0,
        )
        for model, noise in (("learner.embeddings", 1.0), ("reference.embeddings", 0.1))
    }
    return features, mismatched


def sigmoid_costs(embeddings: PairEmbeddings) -> np.ndarray:
    """The whole matrix of pair costs, in float64, from its definition."""
    queries = unit(embeddings.queries.astype(np.float64))
    targets = unit(embeddings.targets.astype(np.float64))
    assert embeddings.logit_bias is not None
    logits = embeddings.logit_scale * queries @ targets.T + embeddings.logit_bias
    signs = 2 * np.eye(len(queries)) - 1
    return np.logaddexp(0, -signs * logits)


def learnability_matrix(features: Mapping[str, PairEmbeddings]) -> np.ndarray:
    return sigmoid_costs(features["learner.embeddings"]) - sigmoid_costs(
        features["reference.embeddings"]
    )


class DenseScores:
    """Joint scores of any matrix, in float64.

    Bounds are above them by as much as the spread of scores, until they are settled.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = np.asarray(matrix, np.float64)
        self.current = self.matrix.diagonal().copy()
        self.added = np.zeros(len(matrix), bool)
        self.settled = np.ones(len(matrix), bool)
        self.num_settled = 0
        self._rng = np.random.default_rng(0)

    def scores(self) -> np.ndarray:
        return self.current.copy()

    def bounds(self) -> np.ndarray:
        slack = self._rng.exponential(self.current.std(), len(self.current))
        return self.current + np.where(self.settled, 0.0, slack)

    def settle(self, candidates: np.ndarray) -> np.ndarray:
        assert len(set(candidates.tolist())) == len(candidates)
        self.num_settled += (~self.settled[candidates]).sum()
        self.settled[candidates] = True
        return self.current[candidates]

    def add(self, chunk: np.ndarray) -> None:
        assert not self.added[chunk].any()
        self.added[chunk] = True
        change = self.matrix[chunk].sum(axis=0) + self.matrix[:, chunk].sum(axis=1)
        self.current[~self.added] += change[~self.added]
        self.settled = self.added.copy()


def all_scores(joint: JointScores) -> np.ndarray:
    """The scores of all candidates."""
    return joint.settle(np.arange(len(joint.bounds())))


def joint_score(matrix: np.ndarray, chosen: np.ndarray) -> float:
    """The sum over all ordered pairs of the chosen."""
    return float(matrix[np.ix_(chosen, chosen)].sum())


def exact_law(
    matrix: np.ndarray, sizes: Sequence[int], temperature: float = 1.0
) -> dict[frozenset[int], float]:
    """P(set) by enumeration of all ordered sequences, softmax after softmax."""
    law: dict[frozenset[int], float] = {}
    starts = np.cumsum([0, *sizes])
    for sequence in itertools.permutations(range(len(matrix)), int(starts[-1])):
        probability = 1.0
        for start, stop in itertools.pairwise(starts):
            before = list(sequence[:start])
            logits = (
                matrix.diagonal()
                + matrix[before].sum(axis=0)
                + matrix[:, before].sum(axis=1)
            ) / temperature
            weights = np.exp(logits - logits.max())
            weights[before] = 0
            for drawn in sequence[start:stop]:
                probability *= weights[drawn] / weights.sum()
                weights[drawn] = 0
        key = frozenset(sequence)
        law[key] = law.get(key, 0.0) + probability
    return law
