"""Scorers of the models in two_tower.py and odd_towers.py, and what to feed them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import two_tower

from curator.models import TwoTowerScorer
from curator.types import PairEmbeddings


def scorer(factory: str = "two_tower:build", **changes: Any) -> TwoTowerScorer:
    given: dict[str, Any] = {
        "factory": factory,
        "args": {},
        "weights": None,
        "device": "cpu",
        "dtype": "float32",
        "micro_batch_size": 16,
        "columns": list(two_tower.COLUMNS),
    }
    return TwoTowerScorer(**{**given, **changes})


def odd(factory: str = "build", **args: Any) -> TwoTowerScorer:
    return scorer(f"odd_towers:{factory}", args=args, columns=["x"], micro_batch_size=4)


def vectors(num_rows: int, width: int = 16) -> pa.RecordBatch:
    values = np.random.default_rng(1).standard_normal((num_rows, width), np.float32)
    return batch_of(values)


def batch_of(values: np.ndarray) -> pa.RecordBatch:
    flat = pa.array(values.reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.record_batch({"x": lists})


def bits(embeddings: PairEmbeddings) -> np.ndarray:
    both = np.concatenate([embeddings.queries, embeddings.targets], axis=1)
    return both.view(np.uint32)
