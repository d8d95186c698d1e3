"""The quickstart's pairs: pictures of emoji and captions, most of them mismatched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.quality.task import Columns, Data, Task, as_tensors
from curator import ModelSpec
from examples.quickstart import data
from examples.quickstart.model import sigmoid_loss

__all__ = ["emoji"]


def emoji() -> Task:
    """Returns the task: match a fifth vendor's pictures with their names."""
    return Task(
        name="emoji",
        model=ModelSpec(
            kind="two_tower",
            factory="examples.quickstart.model:build",
            columns=["image", "tokens"],
            micro_batch_size=128,
        ),
        proxy=None,
        proxy_share=1.0,
        load=load,
        loss=pair_loss,
        evaluate=retrieval,
        optimizer=adamw,
        batch_size=128,
        super_batch_size=512,
        num_epochs=1,
        short_steps=300,
        num_rounds=1,
        reference_epochs=2,
        grid=(7.5e-4, 1.5e-3, 3e-3),
        settings={"mismatched": data.MISMATCHED_SHARE, "pool": data.POOL_SIZE},
        diagnostics=("mismatched",),
    )


def load(seed: int) -> Data:
    """Returns the pool, the curated set and the held-out vendor."""
    pairs = data.load_emoji()
    return Data(
        _columns(data.make_pool(pairs, seed)),
        _columns(data.make_curated(pairs, seed)),
        _columns(data.make_held_out(pairs)),
    )


def _columns(pairs: data.Pairs) -> dict[str, Any]:
    return {
        "image": pairs.image,
        "tokens": pairs.tokens,
        "mismatched": pairs.mismatched,
    }


def pair_loss(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Returns each picture's loss against all captions of the batch."""
    del batch
    return sigmoid_loss(outputs)


def adamw(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    """Returns the quickstart's optimizer."""
    return torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=1e-4, fused=True
    )


@torch.inference_mode()
def retrieval(model: nn.Module, test: Columns) -> dict[str, float]:
    """Returns how often a picture's own name is among the five nearest, or first."""
    model.eval()
    outputs = model(as_tensors(test))
    model.train()
    similarity = outputs["queries"] @ outputs["targets"].T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    return {
        "top5": float((rank < 5).float().mean()),
        "top1": float((rank < 1).float().mean()),
    }
