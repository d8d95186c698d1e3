"""A uniform draw without replacement: the baseline of everything else."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from curator.policies._features import check_num_selected
from curator.policies._ranking import highest
from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["Uniform"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Prefers nothing: every subset of the super-batch is equally likely.

    The baseline that every comparison needs, and what a session falls back to. Reads no
    features, costs O(B), is random.

    Example:
        >>> ids = np.arange(8)
        >>> len(Uniform().select(ids, {}, 2, Noise(seed=0, step=0)).indices)
        2
    """

    name: ClassVar[str] = "uniform"

    @property
    def needs(self) -> frozenset[str]:
        """No features."""
        return frozenset()

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns ``num_selected`` candidates drawn uniformly.

        Raises:
            ValueError: ``num_selected`` is out of range.
        """
        check_num_selected(ids, num_selected)
        return Selection(
            indices=highest(noise.uniform(ids), ids, num_selected),
            weights=np.ones(num_selected, np.float32),
            stats={"num_quarantined": 0.0, "num_topped_up": 0.0},
        )
