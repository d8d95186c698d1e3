"""What a scorer is: one model that turns rows of a pool into features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from curator.types import PairEmbeddings

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
        * embeddings come back as L2-normalised float32;
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

    def score(self, rows: pa.RecordBatch) -> PairEmbeddings:
        """Returns the embeddings of ``rows``; non-finite outputs are passed through.

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
