"""Classifiers and language models small enough to check by hand.

Factories for configurations in tests. Layer widths are multiples of 16, see "Bits" in
docs/models.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 48


class Given(nn.Module):
    """Returns a column as it is, but for its last rows; under a name or bare."""

    def __init__(
        self, column: str, under: str | None, width: int | None, drop: int
    ) -> None:
        super().__init__()
        self.column = column
        self.under = under
        self.drop = drop
        if width is not None:
            self.lm_head = nn.Linear(width, VOCABULARY)

    def forward(self, batch: Mapping[str, Any]) -> object:
        value = batch[self.column]
        value = value[: len(value) - self.drop]
        return value if self.under is None else {self.under: value, "loss": None}


def given(
    column: str, under: str | None = None, width: int | None = None, drop: int = 0
) -> nn.Module:
    torch.manual_seed(4)
    return Given(column, under, width, drop)


class Classifier(nn.Module):
    """Makes logits [b, classes] of column ``x`` [b, 16]; spoils what it is given."""

    def __init__(self, num_classes: int, max_rows: int | None) -> None:
        super().__init__()
        self.max_rows = max_rows
        self.layers = nn.Sequential(
            nn.Linear(16, 32), nn.GELU(), nn.Linear(32, num_classes)
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        if self.max_rows is not None and len(batch["x"]) > self.max_rows:
            torch.empty(2**50, dtype=torch.uint8)
        logits = 4.0 * self.layers(batch["x"])
        for column in batch.values():
            column.zero_()
        return logits


def classifier(
    num_classes: int = 16, seed: int = 0, max_rows: int | None = None
) -> nn.Module:
    torch.manual_seed(seed)
    return Classifier(num_classes, max_rows)


class LanguageModel(nn.Module):
    """Sees the mean of the tokens so far; returns hidden states or logits."""

    def __init__(self, *, returns: str, bias: bool, tied: bool, max_rows: int) -> None:
        super().__init__()
        self.returns = returns
        self.max_rows = max_rows
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.lm_head = nn.Linear(32, VOCABULARY, bias=bias)
        if tied:
            self.lm_head.weight = self.embed.weight

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens = batch["tokens"]
        if len(tokens) > self.max_rows:
            torch.empty(2**50, dtype=torch.uint8)
        counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        seen = self.embed(tokens).cumsum(dim=1) / counts[:, None].sqrt()
        hidden = self.layers(seen.to(self.lm_head.weight.dtype))
        if self.returns == "hidden":
            return {"hidden": hidden}
        return {"logits": self.lm_head(hidden)}


def language_model(
    returns: str = "hidden",
    seed: int = 0,
    max_rows: int = 1000,
    *,
    bias: bool = True,
    tied: bool = False,
) -> nn.Module:
    torch.manual_seed(seed)
    return LanguageModel(returns=returns, bias=bias, tied=tied, max_rows=max_rows)
