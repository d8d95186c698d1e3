"""Fashion-MNIST: real pictures, ten classes, a small convolutional network.

A third of the 60,000 is trained on and a third is the holdout, others for each seed;
the test is the data set's own.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from benchmarks.quality.data import read_part
from benchmarks.quality.mixture import accuracy, cross_entropy, flip_labels, sgd
from benchmarks.quality.task import Columns, Data, Task
from curator import ModelSpec

__all__ = ["fashion"]

SIZE = 20_000
RARE_CLASSES = (4, 9)  # coats, of which a lot is like them, and boots
RARE_SHARE = 0.1  # of a rare class is kept, in the variant that has rare classes
NOISE = 0.1
Variant = Literal["", "noise", "rare"]


def fashion(variant: Variant = "") -> Task:
    """Returns the task: as it is, with 10 % wrong labels, or with two rare classes."""
    model = ModelSpec(
        kind="classifier",
        factory="benchmarks.quality.models:cnn",
        columns=["image"],
        label="label",
        micro_batch_size=256,
    )
    return Task(
        name="fashion" + (f"-{variant}" if variant else ""),
        model=model,
        proxy=ModelSpec(
            kind="classifier",
            factory="benchmarks.quality.models:pooled_mlp",
            columns=["image"],
            label="label",
            micro_batch_size=1280,
        ),
        proxy_share=1_888 / 1_931_000,
        load=functools.partial(load, variant),
        loss=cross_entropy,
        evaluate=accuracy,
        optimizer=sgd,
        batch_size=128,
        super_batch_size=1280,
        num_epochs=10,
        short_steps=312,
        num_rounds=30,
        reference_epochs=5,
        grid=(0.025, 0.05, 0.1),
        settings={"size": SIZE, "noise": NOISE, "rare": [RARE_CLASSES, RARE_SHARE]},
        diagnostics=("rare", "wrong"),
    )


def load(variant: Variant, seed: int) -> Data:
    """Returns the pictures of a seed."""
    rng = np.random.default_rng([seed, 37])
    train, test = read_part("train"), read_part("test")
    order = rng.permutation(len(train["label"]))
    if variant == "rare":
        is_rare = np.isin(train["label"][order], RARE_CLASSES)
        order = order[~is_rare | (rng.random(len(order)) < RARE_SHARE)]
    parts = [_marked(train, order[i * SIZE : (i + 1) * SIZE]) for i in range(2)]
    for part in parts:
        share = NOISE if variant == "noise" else 0.0
        flip_labels(part, share, 10, rng)
    return Data(parts[0], parts[1], _marked(test, np.arange(len(test["label"]))))


def _marked(columns: Columns, rows: np.ndarray) -> dict[str, np.ndarray]:
    part = {name: values[rows] for name, values in columns.items()}
    part["rare"] = np.isin(part["label"], RARE_CLASSES)
    return part
