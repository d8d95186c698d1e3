"""A sampler that another process has, and this one has not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from curator.samplers._base import EpochPlanner, Run

__all__ = ["ForeignSampler"]


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignSampler:
    """What a client knows of a sampler whose class is not imported here.

    It may be the server's own, or of a newer version of curator. The server samples.

    Attributes:
        name: Under which the server knows it.
        options: Its fields.
    """

    name: str
    options: Mapping[str, object]

    @property
    def columns(self) -> frozenset[str]:
        """Not known."""
        return frozenset()

    def start(self, run: Run) -> EpochPlanner:
        """Starts nothing.

        Raises:
            NotImplementedError: Always.
        """
        msg = f"sampler {self.name!r} is not known in this process: import its module"
        raise NotImplementedError(msg)
