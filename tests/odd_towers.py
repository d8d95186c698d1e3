"""Models that do something else than a two-tower model should, for error paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NOT_CALLABLE = 3


class Tower(nn.Module):
    """Embeds column ``x`` [b, D] as itself; ``change`` says what is odd about it."""

    def __init__(self, change: Mapping[str, Any]) -> None:
        super().__init__()
        self.change = change
        self.num_calls = 0

    def forward(self, batch: Mapping[str, Tensor]) -> object:
        self.num_calls += 1
        x = batch["x"]
        outputs: dict[str, object] = {"queries": x, "targets": x, "logit_scale": 1.0}
        for name, value in self.change.items():
            outputs[name] = odd(value, x, self.num_calls)
            if value == "absent":
                del outputs[name]
        return outputs


class Exiting(nn.Module):
    """Wants to end the process."""

    def forward(self, _: Mapping[str, Tensor]) -> object:
        raise SystemExit(3)


def odd(value: object, x: Tensor, num_calls: int) -> object:
    kinds: dict[object, object] = {
        "short": x[:-1],
        "flat": x[:, 0],
        "wide": torch.cat([x, x], dim=1),
        "whole": x.long(),
        "no_width": x[:, :0],
        "pair": x[:2, 0],
        "grows": torch.cat([x] * num_calls, dim=1),
        "tensor_bias": torch.tensor([-2.5]),
    }
    return kinds.get(value, value)


def build(**change: Any) -> Tower:
    return Tower(change)


class Hungry(nn.Module):
    """Asks for a petabyte when it is given more than ``max_rows`` rows."""

    def __init__(self, max_rows: int) -> None:
        super().__init__()
        self.max_rows = max_rows
        self.shapes: list[int] = []

    def forward(self, batch: Mapping[str, Tensor]) -> object:
        x = batch["x"]
        self.shapes.append(len(x))
        if len(x) > self.max_rows:
            torch.empty(2**50, dtype=torch.uint8)
        return {"queries": x, "targets": x, "logit_scale": 1.0}


def exiting() -> Exiting:
    return Exiting()


def hungry(max_rows: int) -> Hungry:
    return Hungry(max_rows)


class Heavy(nn.Module):
    """Asks for a petabyte when it is moved to a device."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(args[0], torch.device):
            torch.empty(2**50, dtype=torch.uint8)
        return super().to(*args, **kwargs)


def heavy() -> Heavy:
    return Heavy()


def on_meta() -> nn.Module:
    return nn.Linear(2, 2, device="meta")


class Inspector(nn.Module):
    """Keeps the batches that it is given, and writes over those it can."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Mapping[str, Any]] = []
        self.layer = nn.Linear(4, 16)

    def forward(self, batch: Mapping[str, Any]) -> object:
        kept = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        self.batches.append({**kept, "grad": torch.is_grad_enabled()})
        for value in batch.values():
            if isinstance(value, Tensor):
                value.zero_()
        size = len(next(iter(batch.values())))
        # As many image models do: float32 of whatever comes in.
        embeddings = self.layer(torch.ones(size, 4).float())
        return {"queries": embeddings, "targets": embeddings, "logit_scale": 1.0}


def inspector() -> Inspector:
    return Inspector()


class Shared(nn.Module):
    """Has tied parameters, and a buffer whose values share one element."""

    def __init__(self, *, expanded: bool) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16, bias=False)
        self.second = nn.Linear(16, 16, bias=False)
        self.second.weight = self.first.weight
        if expanded:
            self.register_buffer("mask", torch.ones(1).expand(16))

    def forward(self, batch: Mapping[str, Tensor]) -> object:
        x = batch["x"]
        return {
            "queries": self.first(x),
            "targets": self.second(x),
            "logit_scale": 1.0,
        }


def shared(*, expanded: bool = False) -> Shared:
    torch.manual_seed(3)
    return Shared(expanded=expanded)


def clashing() -> nn.Module:
    """Returns a module two tensors of which differ in a wrapper's prefix only."""
    outer = nn.Module()
    outer.register_parameter("w", nn.Parameter(torch.ones(1)))
    inner = nn.Module()
    inner.register_parameter("w", nn.Parameter(torch.ones(1)))
    outer.add_module("module", inner)
    return outer


def not_a_module() -> str:
    return "weights"


def raises() -> nn.Module:
    msg = "no checkpoint at s3://nowhere"
    raise RuntimeError(msg)
