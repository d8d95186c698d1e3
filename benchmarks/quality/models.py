"""The models that are trained: small enough for two cores, and for many seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["cnn", "mlp", "narrow", "pooled_mlp"]


class _Mlp(nn.Module):
    """Classifies column ``x``; keeps its last hidden layer apart from its head."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        *hidden, num_classes = widths
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(hidden):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], num_classes)

    def hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.body(batch["x"])

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.head(self.hidden(batch))


class _Images(nn.Module):
    """Classifies column ``image``, uint8 [B, 28, 28]."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, 10)

    def hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        # Mean and spread of the training images.
        pixels = (batch["image"].float() - 72.9) / 90.0
        return self.body(pixels[:, None])

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.head(self.hidden(batch))


def mlp() -> nn.Module:
    """Returns the mixture's model: 32-64-64-10."""
    return _Mlp((32, 64, 64, 10))


def narrow() -> nn.Module:
    """Returns the mixture's proxy: 32-16-10, a tenth of the multiplications."""
    return _Mlp((32, 16, 10))


def cnn() -> nn.Module:
    """Returns Fashion-MNIST's model: three convolutions of 16, 32 and 64 channels."""
    layers: list[nn.Module] = []
    before = 1
    for width in (16, 32, 64):
        layers += [
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        before = width
    return _Images(nn.Sequential(*layers, nn.Flatten()), 64 * 9)


def pooled_mlp() -> nn.Module:
    """Returns Fashion-MNIST's proxy: 49-32-10, on images of a sixteenth of the size."""
    body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 32), nn.ReLU())
    return _Images(body, 32)
