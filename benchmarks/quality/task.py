"""What a task is: data, a model, a loss and a measure. Arms know nothing else of it.

A new task is a function from a seed to :class:`Data` and one :class:`Task`, in a file
of its own, with a line in ``plan.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from curator import ModelSpec

__all__ = ["Data", "Task", "as_tensors", "build", "to_table"]

Columns = Mapping[str, np.ndarray]
Loss = Callable[[Any, Mapping[str, Any]], Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """What one seed trains on and is measured on.

    Attributes:
        train: The pool, by column; row i is example i.
        holdout: As much again that no arm trains on, for a reference model.
        test: What is measured on.
    """

    train: Columns
    holdout: Columns
    test: Columns


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to train.

    Attributes:
        name: Of the task; part of a run's key.
        model: What is trained, as the service knows it.
        proxy: A model at least ten times cheaper, for scoring, or None.
        proxy_share: What its forward pass costs, as a share of the model's (in
            multiplications).
        load: Makes the data of a seed.
        loss: Un-reduced losses, from what the model returns and a batch.
        evaluate: Measures of a model; the first is the headline.
        optimizer: Makes the optimizer for parameters and a learning rate.
        batch_size: K.
        super_batch_size: B, of the arms that score.
        num_epochs: Of the arms that count in epochs.
        short_steps: Of the arms that count in steps.
        num_rounds: Of the arms on a tenth of the pool.
        reference_epochs: Of the reference's training on the holdout.
        diagnostics: Boolean columns whose share of what is trained on is reported.
        grid: The learning rates that are tried, the same for every arm.
        settings: Whatever else defines the data; part of a run's key.
    """

    name: str
    model: ModelSpec
    proxy: ModelSpec | None
    proxy_share: float
    load: Callable[[int], Data]
    loss: Loss
    evaluate: Callable[[nn.Module, Columns], dict[str, float]]
    optimizer: Callable[[Any, float], torch.optim.Optimizer]
    batch_size: int
    super_batch_size: int
    num_epochs: int
    short_steps: int
    num_rounds: int
    reference_epochs: int
    grid: tuple[float, ...]
    settings: Mapping[str, object]
    diagnostics: tuple[str, ...] = ()

    def describe(self) -> dict[str, object]:
        """Returns all of it that can be written down."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("model", "proxy", "load", "loss", "evaluate", "grid")
            and field.name != "optimizer"
        }
        for name in ("model", "proxy"):
            spec: ModelSpec | None = getattr(self, name)
            plain[name] = None if spec is None else [spec.factory, spec.args]
        return plain


def build(spec: ModelSpec, seed: int) -> nn.Module:
    """Returns an untrained model; its weights are a function of the seed."""
    import importlib

    module, _, function = str(spec.factory).partition(":")
    torch.manual_seed(seed)
    return getattr(importlib.import_module(module), function)(**spec.args)


def as_tensors(columns: Columns, rows: Any = slice(None)) -> dict[str, Tensor]:
    """Returns some rows of columns, as a model takes them."""
    return {name: torch.from_numpy(values[rows]) for name, values in columns.items()}


def to_table(columns: Columns) -> pa.Table:
    """Returns columns as an Arrow table; arrays of more dimensions become tensors."""
    return pa.table(
        {
            name: pa.array(values)
            if values.ndim == 1
            else pa.FixedShapeTensorArray.from_numpy_ndarray(
                np.ascontiguousarray(values)
            )
            for name, values in columns.items()
        }
    )
