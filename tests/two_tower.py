"""A small two-tower torch model, and rows of a pool that it reads.

Factories for configurations in tests: ``two_tower:build`` and those below it. Layer
widths are multiples of 16, see "Bits" in docs/models.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

COLUMNS = ("image", "tokens")
VOCABULARY = 97


class TwoTower(nn.Module):
    """Embeds images [b, 3, 4, 4] and token ids [b, 6] as [b, dim]."""

    def __init__(self, dim: int, *, bias: bool) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Flatten(), nn.Linear(48, 64), nn.BatchNorm1d(64), nn.GELU()
        )
        self.image_out = nn.Linear(64, dim)
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.text_out = nn.Linear(32, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0)) if bias else None

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
        return {
            "queries": self.image_out(self.image(batch["image"])),
            "targets": self.text_out(self.embed(batch["tokens"]).mean(dim=1)),
            "logit_scale": self.log_scale.exp(),
            "logit_bias": self.bias,
        }


def build(dim: int = 32, seed: int = 0, *, bias: bool = True) -> TwoTower:
    """Returns a model whose weights depend on the arguments alone."""
    torch.manual_seed(seed)
    return TwoTower(dim, bias=bias)


def build_unseeded(dim: int = 32) -> TwoTower:
    """Returns a model drawn from wherever torch's global generator is."""
    return TwoTower(dim, bias=True)


def build_wrapped(dim: int = 32, seed: int = 0) -> nn.Module:
    """Returns the model of :func:`build` with an attribute called ``module``."""
    wrapped = nn.Module()
    wrapped.add_module("module", build(dim, seed))
    wrapped.forward = wrapped.get_submodule("module").forward
    return wrapped


def rows(num_rows: int, seed: int = 0) -> pa.RecordBatch:
    """Returns rows of images (fixed-shape tensors) and tokens (fixed-size lists)."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((num_rows, 3, 4, 4), dtype=np.float32)
    tokens = rng.integers(0, VOCABULARY, num_rows * 6, dtype=np.int32)
    return pa.record_batch(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
            "caption": pa.array([f"caption {i}" for i in range(num_rows)]),
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), 6),
        }
    )
