"""Embeddings of both sides of a pair, off a two-tower module's output.

Shapes: ``b`` rows of a micro-batch, ``D`` the embedding width.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from curator.errors import ScoringError
from curator.models._head import Batch, Reader, described
from curator.types import Feature, PairEmbeddings

__all__ = ["TwoTowerHead"]

_REQUIRED = ("queries", "targets", "logit_scale")
_KNOWN = (*_REQUIRED, "logit_bias")


@dataclasses.dataclass(frozen=True, slots=True)
class TwoTowerHead:
    """Reads ``embeddings``, L2-normalised in float32.

    The module returns a mapping with ``queries`` and ``targets`` ``[b, D]``, the scalar
    ``logit_scale`` and, if it is trained with a sigmoid loss, the scalar
    ``logit_bias``. A row whose embedding is zero or not finite comes back as NaN.
    """

    @property
    def outputs(self) -> frozenset[str]:
        """Embeddings only."""
        return frozenset({"embeddings"})

    @property
    def columns(self) -> tuple[str, ...]:
        """Reads no columns itself."""
        return ()

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Nothing beside the module."""
        return ()

    def over(self, module: nn.Module, model: str) -> Reader:
        """Returns the reader of a module."""
        return functools.partial(_read, model)


def _read(
    model: str, returned: object, batch: Batch, num_rows: int, outputs: frozenset[str]
) -> Mapping[str, Feature]:
    return {"embeddings": _embeddings(returned, num_rows, model)} if outputs else {}


def _embeddings(returned: object, num_rows: int, model: str) -> PairEmbeddings:
    promised = "a mapping of queries, targets, logit_scale and optionally logit_bias"
    if not isinstance(returned, Mapping):
        kind = type(returned).__name__
        msg = f"model {model!r} returned a {kind}; expected {promised}"
        raise ScoringError(msg)
    named = cast("Mapping[str, object]", returned)
    missing = [name for name in _REQUIRED if name not in named]
    # An unknown one may be a misspelt logit_bias, without which the loss is another.
    unknown = [str(name) for name in named if name not in _KNOWN]
    if missing or unknown:
        msg = (
            f"model {model!r} returned {', '.join(map(str, named)) or 'nothing'}; "
            f"expected {promised}"
        )
        raise ScoringError(msg)
    queries, targets = named["queries"], named["targets"]
    if not (
        _is_embeddings(queries, num_rows)
        and _is_embeddings(targets, num_rows)
        and queries.shape == targets.shape
    ):
        msg = (
            f"model {model!r} returned queries as {described(queries)} and targets as "
            f"{described(targets)}; expected floating-point tensors of one shape "
            f"[{num_rows}, D]"
        )
        raise ScoringError(msg)
    scale = _scalar(named["logit_scale"], "logit_scale", model)
    if scale <= 0.0:
        msg = (
            f"model {model!r} returned logit_scale = {scale}; expected the positive "
            "multiplier of similarities itself, not its logarithm"
        )
        raise ScoringError(msg)
    bias = named.get("logit_bias")
    return PairEmbeddings(
        queries=_normalised(queries).cpu().numpy(),
        targets=_normalised(targets).cpu().numpy(),
        logit_scale=scale,
        logit_bias=None if bias is None else _scalar(bias, "logit_bias", model),
    )


def _is_embeddings(value: object, num_rows: int) -> TypeGuard[Tensor]:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim == 2
        and value.shape[0] == num_rows
        and value.shape[1] > 0
    )


def _scalar(value: object, name: str, model: str) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float) or not math.isfinite(value):
        shown = value if isinstance(value, int | float) else described(value)
        msg = f"model {model!r} returned {name} as {shown}; expected one finite number"
        raise ScoringError(msg)
    return float(value)


def _normalised(embeddings: Tensor) -> Tensor:
    """Returns rows of length one in float32, NaN where there is no such row."""
    embeddings = embeddings.float()
    # torch does not type its linear algebra.
    norms: Tensor = cast("Any", torch.linalg).vector_norm(
        embeddings, dim=1, keepdim=True
    )
    # A norm over itself is 1, or NaN: of 0, of infinity and of NaN.
    return embeddings / (norms / (norms / norms))
