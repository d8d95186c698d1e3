"""What a two-tower module returns: checked, and normalised.

Shapes: ``b`` rows of a micro-batch, ``D`` the embedding width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor

from curator.errors import ScoringError

__all__ = ["Outputs", "checked_outputs"]

_REQUIRED = ("queries", "targets", "logit_scale")
_KNOWN = (*_REQUIRED, "logit_bias")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the module returned for a micro-batch, checked and normalised."""

    queries: Tensor
    targets: Tensor
    logit_scale: float
    logit_bias: float | None


def checked_outputs(outputs: object, num_rows: int, factory: str) -> Outputs:
    """Returns what a module returned, if it is what was promised.

    Raises:
        ScoringError: It is not.
    """
    promised = "a mapping of queries, targets, logit_scale and optionally logit_bias"
    if not isinstance(outputs, Mapping):
        kind = type(outputs).__name__
        msg = f"model {factory!r} returned a {kind}; expected {promised}"
        raise ScoringError(msg)
    named = cast("Mapping[str, object]", outputs)
    missing = [name for name in _REQUIRED if name not in named]
    # An unknown one may be a misspelt logit_bias, without which the loss is another.
    unknown = [str(name) for name in named if name not in _KNOWN]
    if missing or unknown:
        msg = (
            f"model {factory!r} returned {', '.join(map(str, named)) or 'nothing'}; "
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
            f"model {factory!r} returned queries as {_described(queries)} and "
            f"targets as {_described(targets)}; expected floating-point tensors of one "
            f"shape [{num_rows}, D]"
        )
        raise ScoringError(msg)
    scale = _scalar(named["logit_scale"], "logit_scale", factory)
    if scale <= 0.0:
        msg = (
            f"model {factory!r} returned logit_scale = {scale}; expected the positive "
            "multiplier of similarities itself, not its logarithm"
        )
        raise ScoringError(msg)
    bias = named.get("logit_bias")
    return Outputs(
        queries=_normalised(queries),
        targets=_normalised(targets),
        logit_scale=scale,
        logit_bias=None if bias is None else _scalar(bias, "logit_bias", factory),
    )


def _is_embeddings(value: object, num_rows: int) -> TypeGuard[Tensor]:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim == 2
        and value.shape[0] == num_rows
        and value.shape[1] > 0
    )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"


def _scalar(value: object, name: str, factory: str) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float) or not math.isfinite(value):
        shown = value if isinstance(value, int | float) else _described(value)
        msg = (
            f"model {factory!r} returned {name} as {shown}; expected one finite number"
        )
        raise ScoringError(msg)
    return float(value)


def _normalised(embeddings: Tensor) -> Tensor:
    """Returns rows of length one in float32, NaN where there is no such row."""
    embeddings = embeddings.float()
    # torch does not type its linear algebra.
    norms: Tensor = cast("Any", torch.linalg).vector_norm(
        embeddings, dim=1, keepdim=True
    )
    usable = torch.isfinite(norms) & (norms > 0)
    return torch.where(usable, embeddings / norms, math.nan)
