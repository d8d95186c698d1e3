"""From a model's specification to what scores with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curator.config import ModelSpec
from curator.models._base import Scorer

if TYPE_CHECKING:
    from curator.models._head import Head

__all__ = ["build_scorer"]


def build_scorer(spec: ModelSpec) -> Scorer:
    """Returns the scorer of a model of any kind but ``table``.

    Raises:
        ConfigError: The factory cannot be called, or another key is wrong.
        MissingDependencyError: Torch is not installed.
        SnapshotError: The weights do not fit the model.
        StorageError: The weights cannot be read.
    """
    from curator import models  # its lazy names, and with them torch, only now

    return models.ModuleScorer(
        head=_head(spec),
        factory=str(spec.factory),
        args=spec.args,
        weights=None if spec.weights is None else Path(spec.weights),
        device=spec.device,
        dtype=spec.dtype,
        micro_batch_size=spec.micro_batch_size,
        columns=spec.columns,
    )


def _head(spec: ModelSpec) -> Head:
    from curator import models

    if spec.kind == "classifier":
        return models.ClassifierHead(label=str(spec.label))
    if spec.kind == "causal_lm":
        return models.CausalLMHead(tokens=str(spec.tokens), mask=spec.mask)
    return models.TwoTowerHead()
