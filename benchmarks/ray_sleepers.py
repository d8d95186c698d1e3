"""A stand-in for a GPU: a two-tower model whose forward pass sleeps."""

import time

import torch
from torch import nn

__all__ = ["Sleeper", "build"]


class Sleeper(nn.Module):
    """Sleeps, then says that each example resembles itself.

    Attributes:
        weight: Nothing but bytes to publish.
    """

    def __init__(self, seconds: float, megabytes: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.zeros(int(megabytes * 1e6 / 4)))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, object]:
        """Returns the column ``x`` as both embeddings, after a while."""
        time.sleep(self.seconds)
        x = batch["x"]
        return {"queries": x, "targets": x, "logit_scale": 10.0, "logit_bias": -10.0}


def build(*, seconds: float, megabytes: float = 0.001) -> Sleeper:
    """Returns the model."""
    return Sleeper(seconds, megabytes)
