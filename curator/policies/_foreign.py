"""A policy that another process has, and this one has not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["ForeignPolicy"]


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignPolicy:
    """What a client knows of a policy whose class is not imported here.

    It may be the server's own, or of a newer version of curator. The server selects.

    Attributes:
        name: Under which the server knows it.
        options: Its fields.
        needs: What it reads.
    """

    name: str
    options: Mapping[str, object]
    needs: frozenset[str]

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Selects nothing.

        Raises:
            NotImplementedError: Always.
        """
        msg = f"policy {self.name!r} is not known in this process: import its module"
        raise NotImplementedError(msg)
