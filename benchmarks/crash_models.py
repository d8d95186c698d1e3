"""Models of the crash worlds that a server scores with: as small as models can be.

Layer widths are multiples of 16, see "Bits" in docs/models.md. The names and shapes of
the weights are those of ``crash_worlds.WEIGHTS``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["classifier", "language_model", "two_tower"]


class _Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.layer(batch["x"])


class _Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(16, 16)
        self.right = nn.Linear(16, 16)
        self.scale = nn.Parameter(torch.tensor([5.0]))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "queries": self.left(batch["x"]),
            "targets": self.right(batch["y"]),
            "logit_scale": self.scale[0].abs() + 1,
            "logit_bias": self.scale[0] * 0 - 2,
        }


class _LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 16)
        self.lm_head = nn.Linear(16, 32)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"hidden": self.embed(batch["tokens"])}


def _seeded(make: type[nn.Module], seed: int) -> nn.Module:
    module, generator = make(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in module.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))
    return module


def classifier(seed: int = 0) -> nn.Module:
    """Returns a classifier of column ``x`` into 16 classes."""
    return _seeded(_Classifier, seed)


def two_tower(seed: int = 0) -> nn.Module:
    """Returns towers over the columns ``x`` and ``y``."""
    return _seeded(_Towers, seed)


def language_model(seed: int = 0) -> nn.Module:
    """Returns a language model of column ``tokens``."""
    return _seeded(_LanguageModel, seed)
