"""The example's model: two linear towers over pairs of vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTH = 16


class Towers(nn.Module):
    """Embeds both sides of a pair in the same space."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(WIDTH, WIDTH)
        self.text = nn.Linear(WIDTH, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what the kind ``two_tower`` asks for; see docs/models.md."""
        return {
            "queries": self.image(batch["image"]),
            "targets": self.text(batch["text"]),
            "logit_scale": self.log_scale.exp(),
            "logit_bias": self.bias,
        }


def build(seed: int = 0) -> Towers:
    """Returns the model, the same one for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Towers()
