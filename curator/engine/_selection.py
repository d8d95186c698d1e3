"""What a policy selects, and whether that is what a policy may select."""

from __future__ import annotations

import numpy as np

from curator.errors import CuratorError, ScoringError
from curator.policies import Policy
from curator.rng import Noise
from curator.types import Features, Selection, SuperBatch

__all__ = ["select"]


def select(
    policy: Policy,
    super_batch: SuperBatch,
    features: Features,
    num_selected: int,
    noise: Noise,
) -> Selection:
    """Returns what a policy selects, which may be one that is not ours.

    What it selects is written to the ledger, and trained on: it is looked at before.

    Raises:
        CuratorError: The policy raised it.
        ScoringError: The policy raised something else, or returned something else than
            that many distinct positions, each with a finite weight of at least 0.
    """
    try:
        selection = policy.select(super_batch.ids, features, num_selected, noise)
    except CuratorError:
        raise
    except (Exception, SystemExit) as error:
        msg = (
            f"policy {policy!r} raised {type(error).__name__} at step "
            f"{super_batch.step}: {error}"
        )
        raise ScoringError(msg) from error
    fault = _fault(selection, len(super_batch.ids), num_selected)
    if fault is not None:
        msg = (
            f"policy {policy!r} has to select {num_selected} distinct positions of "
            f"{len(super_batch.ids)}, with finite weights from 0; at step "
            f"{super_batch.step} {fault}"
        )
        raise ScoringError(msg)
    return selection


def _fault(selection: object, num_candidates: int, num_selected: int) -> str | None:
    """Returns what is wrong with a selection, in words, if something is."""
    if not isinstance(selection, Selection):
        return f"it returned a {type(selection).__name__}"
    indices = np.asarray(selection.indices)
    if indices.shape != (num_selected,) or indices.dtype.kind != "i":
        return f"it returned {indices.dtype} of shape {indices.shape}"
    if indices.min() < 0 or indices.max() >= num_candidates:
        return f"it returned positions from {indices.min()} to {indices.max()}"
    is_taken = np.zeros(num_candidates, bool)
    is_taken[indices] = True
    num_distinct = np.count_nonzero(is_taken)
    if num_distinct < num_selected:
        return f"it returned {num_distinct} distinct ones"
    weights = np.asarray(selection.weights)
    if weights.shape != (num_selected,) or weights.dtype.kind != "f":
        return f"its weights are {weights.dtype} of shape {weights.shape}"
    if not np.isfinite(weights).all() or weights.min() < 0:
        return f"its weights are from {weights.min()} to {weights.max()}"
    return None
