"""Scorers of the models in tests, what to feed them, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import two_tower

from curator.models import Head, ModuleScorer, TwoTowerHead
from curator.types import PairEmbeddings


def scorer(
    factory: str = "two_tower:build", head: Head | None = None, **changes: Any
) -> ModuleScorer:
    given: dict[str, Any] = {
        "args": {},
        "weights": None,
        "device": "cpu",
        "dtype": "float32",
        "micro_batch_size": 16,
        "columns": list(two_tower.COLUMNS),
    }
    return ModuleScorer(
        head=head or TwoTowerHead(), factory=factory, **{**given, **changes}
    )


def odd(factory: str = "build", **args: Any) -> ModuleScorer:
    return scorer(f"odd_towers:{factory}", args=args, columns=["x"], micro_batch_size=4)


def embed(model: ModuleScorer, rows: pa.RecordBatch) -> PairEmbeddings:
    embeddings = model.score(rows, frozenset({"embeddings"}))["embeddings"]
    assert isinstance(embeddings, PairEmbeddings)
    return embeddings


def compute(
    model: ModuleScorer, rows: pa.RecordBatch, *outputs: str
) -> Mapping[str, np.ndarray]:
    """Returns outputs that are arrays, all of the model's by default."""
    found: dict[str, np.ndarray] = {}
    for name, values in model.score(rows, frozenset(outputs) or model.outputs).items():
        assert isinstance(values, np.ndarray)
        assert values.dtype == np.float32
        assert len(values) == rows.num_rows
        found[name] = values
    return found


def vectors(num_rows: int, width: int = 16) -> pa.RecordBatch:
    values = np.random.default_rng(1).standard_normal((num_rows, width), np.float32)
    return batch_of(values)


def batch_of(values: np.ndarray) -> pa.RecordBatch:
    return pa.record_batch({"x": lists_of(values)})


def lists_of(values: np.ndarray) -> pa.Array:
    """Returns a column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def bits(embeddings: PairEmbeddings) -> np.ndarray:
    both = np.concatenate([embeddings.queries, embeddings.targets], axis=1)
    return both.view(np.uint32)
