"""Scores: linear combinations of what the models say of one example."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

__all__ = ["SCORES", "PairScoreName", "Score", "ScoreName"]

ScoreName: TypeAlias = Literal[
    "easy_reference",
    "entropy",
    "grad_norm",
    "hard_learner",
    "learnability",
    "loss",
    "nuclear_norm",
]

PairScoreName: TypeAlias = Literal["easy_reference", "hard_learner", "learnability"]
"""The scores that also exist for pairs, of a contrastive loss."""


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """A sum of features, each times a coefficient; higher is wanted more.

    Attributes:
        terms: Names of features with one float per candidate, each with its
            coefficient.
    """

    terms: tuple[tuple[str, float], ...]

    @property
    def models(self) -> tuple[tuple[str, float], ...]:
        """The models of a score of losses, by name, each with its coefficient.

        A contrastive loss takes their costs of pairs in the place of their losses.
        """
        return tuple(
            (name.removesuffix(".loss"), factor) for name, factor in self.terms
        )

    @property
    def may_be_negative(self) -> bool:
        """Whether it can be below 0 where no feature is."""
        return any(factor < 0 for _, factor in self.terms)


_LOSS = Score((("learner.loss", 1.0),))

SCORES: dict[ScoreName, Score] = {
    "easy_reference": Score((("reference.loss", -1.0),)),
    "entropy": Score((("learner.entropy", 1.0),)),
    "grad_norm": Score((("learner.grad_norm", 1.0),)),
    "hard_learner": _LOSS,
    "learnability": Score((("learner.loss", 1.0), ("reference.loss", -1.0))),
    "loss": _LOSS,
    "nuclear_norm": Score((("learner.nuclear_norm", 1.0),)),
}
"""Scores by name. Three are those of JEST (arXiv 2406.17711, section 2); learnability
is the reducible loss of RHO-LOSS (arXiv 2206.07137). ``hard_learner`` and ``loss`` are
one score: the first is JEST's word, the second everybody else's, for single losses."""
