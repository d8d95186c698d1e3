"""What a scorer is: one model that turns rows of a pool into features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from curator.types import Feature

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Scorer"]


@runtime_checkable
class Scorer(Protocol):
    """One model, on one device, that scores candidates.

    Constraints:
        * :meth:`score` depends on the rows and the weights only: a row's embedding is
          the same whichever rows it is scored with (micro-batches have one fixed
          shape, the last one padded);
        * embeddings come back as L2-normalised float32, everything else as float32 of
          shape (rows,) or (rows, width); logits never leave the scorer;
        * :meth:`load` swaps all weights or none.
    """

    @property
    def fingerprint(self) -> str:
        """Digest of what the outputs depend on: factory, arguments, weights, dtype."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the pool that the model reads."""
        ...

    @property
    def outputs(self) -> frozenset[str]:
        """Names of what it can compute: ``embeddings``, ``loss``, ``grad_norm`` ..."""
        ...

    def score(
        self, rows: pa.RecordBatch, outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        """Returns the outputs asked for; non-finite values are passed through.

        Args:
            rows: What to score.
            outputs: Some of :attr:`outputs`; nothing else is computed.

        Raises:
            ScoringError: The model raised, or returned something else than promised.
        """
        ...

    def check(self, weights: Path) -> None:
        """Checks that a safetensors file fits the model, without loading it.

        Raises:
            SnapshotError: Tensors are missing, unknown or of another shape; the
                message names them.
        """
        ...

    def load(self, weights: Path) -> None:
        """Replaces the weights by those of a safetensors file, all or none.

        Raises:
            SnapshotError: As for :meth:`check`.
        """
        ...
