"""The quickstart's model: two small towers and the sigmoid loss over a batch's pairs.

The server builds the same module from ``build`` to score candidates, so this file needs
nothing but torch.

Shapes: ``B`` pairs in a batch, ``T`` tokens of a caption, ``D`` embedding size.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class ImageTower(nn.Module):
    """Four strided convolutions: 32 x 32 pixels to one vector."""

    def __init__(self, widths: tuple[int, int, int, int], dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            # Stride 2 from the first layer on: full resolution would cost most of the
            # time and tell little more about a 32-pixel emoji.
            layers += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(channels * 4, dim)

    def forward(self, image: Tensor) -> Tensor:
        """Maps uint8 [B, 3, 32, 32] to [B, D]."""
        pixels = image.float().div_(127.5).sub_(1.0)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self.project(self.convolutions(pixels).flatten(1))


class TextTower(nn.Module):
    """The mean of hashed n-gram embeddings, and a small MLP."""

    def __init__(self, vocabulary: int, width: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(vocabulary, width, mode="mean", padding_idx=0)
        # Torch draws from unit variance: steps of 1e-3 would hardly move that.
        nn.init.normal_(self.embed.weight, std=0.02)
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps int32 [B, T] to [B, D]."""
        return self.mlp(self.embed(tokens))


class TwoTower(nn.Module):
    """Embeds images and captions so that true pairs are close."""

    def __init__(
        self,
        widths: tuple[int, int, int, int],
        text_width: int,
        dim: int,
        vocabulary: int,
    ) -> None:
        super().__init__()
        self.image_tower = ImageTower(widths, dim)
        self.text_tower = TextTower(vocabulary, text_width, dim)
        # Without this the sigmoid loss starts on a plateau (all pairs look alike), and
        # how long it stays there depends on the seed.
        self.image_norm = nn.BatchNorm1d(dim, affine=False)
        self.text_norm = nn.BatchNorm1d(dim, affine=False)
        # As SigLIP starts: nearly all pairs of a batch are negatives.
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds a batch.

        Args:
            batch: ``image``, uint8 [B, 3, 32, 32], and ``tokens``, int32 [B, T].

        Returns:
            ``queries`` (images) and ``targets`` (captions), unit vectors [B, D];
            ``logit_scale``, a positive multiplier, and ``logit_bias``, scalars.
        """
        queries = self.image_norm(self.image_tower(batch["image"]))
        targets = self.text_norm(self.text_tower(batch["tokens"]))
        return {
            "queries": functional.normalize(queries, dim=-1),
            "targets": functional.normalize(targets, dim=-1),
            "logit_scale": self.log_scale.exp(),
            "logit_bias": self.logit_bias,
        }


def build(
    *,
    widths: tuple[int, int, int, int] = (24, 48, 96, 96),
    text_width: int = 128,
    dim: int = 64,
    vocabulary: int = 8192,
) -> nn.Module:
    """Returns an untrained model; its weights come from torch's global generator."""
    model = TwoTower((*widths,), text_width, dim, vocabulary)
    return model.to(memory_format=torch.channels_last)


def sigmoid_loss(outputs: Mapping[str, Tensor]) -> Tensor:
    """Returns each image's loss against all captions of the batch, [B].

    The mean over the batch is the SigLIP loss: one positive and B - 1 negatives a row.
    """
    similarity = outputs["queries"] @ outputs["targets"].T
    logits = outputs["logit_scale"] * similarity + outputs["logit_bias"]
    signs = 2.0 * torch.eye(len(logits), device=logits.device) - 1.0
    return functional.softplus(-signs * logits).sum(dim=-1)
