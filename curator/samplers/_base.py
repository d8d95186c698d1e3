"""What a sampler is: which examples become candidates, and when."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from curator.types import SuperBatch

__all__ = ["Sampler"]


@runtime_checkable
class Sampler(Protocol):
    """Decides which examples become candidates, in what order, over an epoch."""

    @property
    def num_steps_per_epoch(self) -> int:
        """How many super-batches an epoch gives."""
        ...

    def super_batch(self, step: int) -> SuperBatch:
        """Returns the candidates of a step, the same ones whenever it is asked."""
        ...
