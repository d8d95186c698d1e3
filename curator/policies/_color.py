"""CoLoR: the loss of a model before it saw the target, less that after it did."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from curator.policies._candidates import Candidates
from curator.policies._embeddings import check_feature_name
from curator.policies._features import read_floats
from curator.policies._ranking import highest
from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["Color"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Color:
    """Prefers what training on the target has made likelier.

    The score is the loss of a *prior* model, trained on anything, less that of a
    *conditional* one, the same model after some training on the target: where it is
    high, the example is like the target. Nothing of the model in training is looked at,
    so that all scores are computed once and ahead.

    Use it to filter a large general pool for a target of which there is a little. As a
    number it is ``learnability`` with a learner that is frozen at the prior; it is a
    policy of its own because it reads two columns of any name. Costs O(B + K log K) and
    is deterministic; equal scores are ordered by a hash of the example id.

    Source: Brandfonbrener et al. 2024, "CoLoR-Filter: conditional loss reduction
    filtering for targeted language model pre-training", arXiv 2406.10670.

    Attributes:
        prior: The feature that holds the prior model's loss, mean over the tokens.
        conditional: That of the conditional model.

    Stats: ``num_quarantined``, ``num_topped_up``, and ``score_mean`` of the chosen.

    Example:
        >>> features = {
        ...     "learner.loss": np.array([3.0, 3.0, 2.0]),
        ...     "reference.loss": np.array([2.9, 2.0, 1.5]),
        ... }
        >>> noise = Noise(seed=0, step=0)
        >>> Color().select(np.arange(3), features, 2, noise).indices
        array([1, 2])
    """

    name: ClassVar[str] = "color"

    prior: str = "learner.loss"
    conditional: str = "reference.loss"

    def __post_init__(self) -> None:
        check_feature_name("prior", self.prior)
        check_feature_name("conditional", self.conditional)

    @property
    def needs(self) -> frozenset[str]:
        """The two losses."""
        return frozenset({self.prior, self.conditional})

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the candidates with the highest scores, highest first.

        Raises:
            FeatureError: A loss is missing or not one float per candidate.
            ValueError: ``num_selected`` is out of range.
        """
        prior = read_floats(features, self.prior, ids)
        with np.errstate(invalid="ignore"):
            scores = prior - read_floats(features, self.conditional, ids)
        candidates = Candidates.of(
            ids, np.isfinite(scores), scores, num_selected, noise
        )
        ranked = scores[candidates.positions]
        return candidates.select(highest(ranked, candidates.ids, candidates.num_drawn))
