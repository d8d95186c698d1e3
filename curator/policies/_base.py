"""What a selection policy is.

Shapes: ``B`` is the super-batch size, ``K`` the batch size.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["Policy", "RememberingPolicy"]


@runtime_checkable
class Policy(Protocol):
    """Chooses the sub-batch out of a super-batch.

    A policy is a frozen dataclass: its fields are its configuration, its ``repr`` is
    its identity in logs. It is pure: arrays in, a :class:`Selection` out; no model, no
    I/O, no clock, no global generator.

    Constraints:
        * exactly ``num_selected`` distinct indices;
        * a function of the arguments, and of each candidate's id and features, not of
          its position: shuffling the candidates shuffles nothing but the indices;
        * candidates with non-finite features are selected only when nothing else is
          left, by a uniform draw, and are counted in ``stats`` (``num_quarantined``,
          ``num_topped_up``);
        * the inputs are not written to.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of the features that :meth:`select` reads."""
        ...

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the ``num_selected`` examples to train on.

        Args:
            ids: Example ids of the candidates, distinct.
            features: At least the features named by :attr:`needs`, one row per id.
            num_selected: How many to choose, in [1, B].
            noise: The randomness of this step.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        ...


@runtime_checkable
class RememberingPolicy(Policy, Protocol):
    """A policy that looks back on what it selected.

    Its ``needs`` hold ``memory``: float32 of shape (rows, width), the newest rows of
    ``Selection.remember`` of the steps that were trained on, oldest first, as of the
    report of step ``s - 1 - max_ahead``; no rows at first. The engine keeps them, in
    the ledger, so the policy stays pure.
    """

    @property
    def memory_rows(self) -> int:
        """How many rows it wants back, at most."""
        ...
