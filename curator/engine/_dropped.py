"""Which candidates of a step were not selected, derived from the ledger again."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from curator.config import SessionSpec
from curator.engine._epochs import start_epochs
from curator.engine._plan_states import PlanStates
from curator.errors import SessionError
from curator.ledger import Ledger, StepRecord
from curator.pools import Pool

__all__ = ["Dropped", "dropped"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """The candidates of a step that are not in its batch.

    Attributes:
        ids: Example ids, in the sampler's order.
        weights: The sampler's weight of each; None where all are 1.
    """

    ids: Int64[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"] | None


def dropped(
    spec: SessionSpec, record: StepRecord, pool: Pool, ledger: Ledger, plans: Path
) -> Dropped:
    """Returns the candidates of a step that were not selected.

    Candidates are not recorded: a sampler makes the same plan of the same seed and
    losses again.

    Args:
        spec: What the session is.
        record: The step; not one that was skipped before it was defined.
        pool: Of the session's size, and with the columns that its sampler reads.
        ledger: Where the losses are; only read.
        plans: The folder of the sampler's states; only read.

    Raises:
        SessionError: The losses that the plan was made from are not kept any more.
        StorageError: A state of the sampler is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="curator-plans-") as scratch:
        # What is planned from here on is written to the scratch folder: of the files
        # of a running server, only the links are replaced or deleted.
        for path in plans.glob("*.safetensors"):
            (Path(scratch) / path.name).symlink_to(path.absolute())
        epochs = start_epochs(spec, pool, ledger, PlanStates(Path(scratch)))
        candidates = epochs.super_batch(record.step)
    if not np.isin(record.ids, candidates.ids).all():
        msg = (
            f"step {record.step} has examples that are not among the candidates that "
            "its sampler plans now: the sampler, or this version of it, is another"
        )
        raise SessionError(msg)
    left = ~np.isin(candidates.ids, record.ids)
    weights = candidates.weights
    return Dropped(candidates.ids[left], None if weights is None else weights[left])
