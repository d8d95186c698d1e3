"""Scores: linear combinations of the learner's and the reference model's loss."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

__all__ = ["SCORES", "Score", "ScoreName"]

ScoreName: TypeAlias = Literal["easy_reference", "hard_learner", "learnability"]


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """``learner * learner_loss + reference * reference_loss``, higher is wanted more.

    Attributes:
        learner: The coefficient of the learner's loss; 0 where it is not needed.
        reference: The coefficient of the reference model's loss, likewise.
    """

    learner: float
    reference: float

    @property
    def terms(self) -> tuple[tuple[str, float], ...]:
        """The models that are needed, by name, each with its coefficient."""
        pairs = (("learner", self.learner), ("reference", self.reference))
        return tuple((model, value) for model, value in pairs if value != 0)


SCORES: dict[ScoreName, Score] = {
    "easy_reference": Score(learner=0.0, reference=-1.0),
    "hard_learner": Score(learner=1.0, reference=0.0),
    "learnability": Score(learner=1.0, reference=-1.0),
}
"""Scores by name (JEST, arXiv 2406.17711, section 2; learnability is the reducible
loss of RHO-LOSS, arXiv 2206.07137)."""
