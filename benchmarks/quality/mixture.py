"""A synthetic mixture: ten classes, each one large cluster and four rare ones.

Made from the seed alone, so that the quick run needs no data. What a mean hides shows:
accuracy on the rare clusters is reported beside the accuracy on all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.task import Columns, Data, Task, as_tensors
from curator import ModelSpec

__all__ = ["accuracy", "cross_entropy", "flip_labels", "mixture", "sgd"]

DIM = 32
NUM_CLASSES = 10
CHUNK = 500  # of an evaluation
NUM_RARE = 4  # rare clusters of each class
RARE_SHARE = 0.15  # of all examples are in rare clusters
CENTRE_SCALE = 0.65  # of the clusters' centres; the noise around them has scale 1
NUM_TRAIN, NUM_HOLDOUT, NUM_TEST = 20_000, 10_000, 20_000


def mixture(noise: float = 0.0) -> Task:
    """Returns the task; with ``noise``, that share of the training labels is wrong."""
    name = "mixture-noise" if noise else "mixture"
    factory = "benchmarks.quality.models:"
    return Task(
        name=name,
        model=_spec(factory + "mlp"),
        proxy=_spec(factory + "narrow"),
        proxy_share=672 / 6_784,
        load=functools.partial(load, noise),
        loss=cross_entropy,
        evaluate=accuracy,
        optimizer=sgd,
        batch_size=128,
        super_batch_size=1280,
        num_epochs=16,
        short_steps=312,
        num_rounds=16,
        reference_epochs=8,
        grid=(0.025, 0.05, 0.1, 0.2, 0.4),
        settings={
            "noise": noise,
            "rare_share": RARE_SHARE,
            "centre_scale": CENTRE_SCALE,
            "sizes": [NUM_TRAIN, NUM_HOLDOUT, NUM_TEST],
        },
        diagnostics=("rare", "wrong"),
    )


def _spec(factory: str) -> ModelSpec:
    return ModelSpec(
        kind="classifier",
        factory=factory,
        columns=["x"],
        label="label",
        micro_batch_size=1280,
    )


def load(noise: float, seed: int) -> Data:
    """Returns the examples of a seed, which has its own clusters."""
    rng = np.random.default_rng([seed, 31])
    shape = (NUM_CLASSES, 1 + NUM_RARE, DIM)
    centres = rng.standard_normal(shape) * CENTRE_SCALE
    parts = [_draw(centres, n, rng) for n in (NUM_TRAIN, NUM_HOLDOUT, NUM_TEST)]
    train, holdout, test = parts
    for part in (train, holdout):
        flip_labels(part, noise, NUM_CLASSES, rng)
    return Data(train, holdout, test)


def _draw(
    centres: np.ndarray, count: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    label = rng.integers(0, NUM_CLASSES, count)
    is_rare = rng.random(count) < RARE_SHARE
    cluster = np.where(is_rare, rng.integers(1, 1 + NUM_RARE, count), 0)
    x = centres[label, cluster] + rng.standard_normal((count, DIM))
    return {"x": x.astype(np.float32), "label": label, "rare": is_rare}


def flip_labels(
    part: dict[str, np.ndarray],
    share: float,
    num_classes: int,
    rng: np.random.Generator,
) -> None:
    """Gives a share of the examples another class; column ``wrong`` says which."""
    label = part["label"]
    wrong = rng.random(len(label)) < share
    other = (label + rng.integers(1, num_classes, len(label))) % num_classes
    part["label"], part["wrong"] = np.where(wrong, other, label), wrong


def cross_entropy(outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the loss of each example."""
    return functional.cross_entropy(outputs, batch["label"], reduction="none")


def sgd(parameters: object, learning_rate: float) -> torch.optim.Optimizer:
    """Returns SGD with momentum, and the weight decay of both papers' recipes."""
    return torch.optim.SGD(
        parameters,  # pyright: ignore[reportArgumentType] - torch's own iterable type
        lr=learning_rate,
        momentum=0.9,
        weight_decay=5e-4,
    )


@torch.inference_mode()
def accuracy(model: nn.Module, test: Columns) -> dict[str, float]:
    """Returns the accuracy, on all and on the rare part."""
    model.eval()
    right = torch.cat(
        [
            model(batch := as_tensors(test, slice(start, start + CHUNK))).argmax(dim=1)
            == batch["label"]
            for start in range(0, len(test["label"]), CHUNK)
        ]
    ).numpy()
    model.train()
    return {
        "accuracy": float(right.mean()),
        "rare": float(right[test["rare"]].mean()),
    }
