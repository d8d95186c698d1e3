"""What the ledger holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Int64

__all__ = ["Report", "SnapshotRecord", "StepRecord"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StepRecord:
    """One global batch, and why it is what it is.

    Attributes:
        step: The learner's global step.
        epoch: The sampler's epoch.
        ids: Example ids, in the order in which they are delivered.
        weights: Multiplier of each example's loss.
        scores: What each was ranked by; None where nothing was scored.
        snapshot_step: Learner steps in the weights that scored it; None where no
            learner was involved.
        late: Scorers fell behind and ``on_late`` made it a uniform draw.
        stats: Counts and seconds, by name; what sessions sum up as their cost.
        remember: Rows that the policy wants to see again, or None.
    """

    step: int
    epoch: int
    ids: Int64[np.ndarray, " K"]
    weights: Float32[np.ndarray, " K"]
    scores: Float32[np.ndarray, " K"] | None = None
    snapshot_step: int | None = None
    late: bool = False
    stats: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    remember: Float32[np.ndarray, "rows width"] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Report:
    """That rows ``start`` to ``stop`` of a step's batch have been trained on.

    Attributes:
        step: The step.
        start: First row of the batch that the report covers.
        stop: One after the last.
        losses: Un-reduced loss of each of those rows, NaN where it was not finite; or
            None.
    """

    step: int
    start: int
    stop: int
    losses: Float32[np.ndarray, " n"] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A published snapshot of the learner.

    Attributes:
        snapshot_step: Learner steps in the weights.
        report_step: It counts from the report of this step on.
        digest: Hexadecimal digest of the file.
    """

    snapshot_step: int
    report_step: int
    digest: str
