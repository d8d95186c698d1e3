"""Pools and models for the scoring of whole pools, and what it writes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import two_tower
from scorers import lists_of
from small_models import Classifier, classifier
from torch import Tensor, nn

from curator.config import Config, load_config
from curator.offline import ScoreJob

NUM_EXAMPLES = 250
NAN_IDS = (3, 70, 71)  # in the first shard of 64, and in the second
LOSS = ("loss",)


class Gated(Classifier):
    """Says on stdout when it is called, and waits for a line on stdin."""

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        sys.stdout.write("forward\n")
        sys.stdout.flush()
        sys.stdin.readline()
        return super().forward(batch)


def gated() -> nn.Module:
    """Returns the model of ``small_models:classifier``, which waits for input."""
    model = Gated(16, None)
    model.load_state_dict(classifier().state_dict())
    return model


def write_config(folder: Path, *, num_examples: int = NUM_EXAMPLES) -> Path:
    """Writes a pool and a configuration of models of every kind that read it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_examples, 16), np.float32)
    x[[i for i in NAN_IDS if i < num_examples]] = np.nan
    images = rng.integers(0, 255, (num_examples, 48)).astype(np.float32)
    table = pa.table(
        {
            "x": lists_of(x),
            "label": rng.integers(0, 16, num_examples),
            "image": lists_of(images),
            "tokens": lists_of(rng.integers(0, 48, (num_examples, 6))),
        }
    )
    pq.write_table(table, folder / "pool.parquet", row_group_size=100)
    path = folder / "server.toml"
    path.write_text(
        f"""
        [server]
        python_path = ["{Path(__file__).parent}"]

        [pools.p]
        format = "parquet"
        path = "pool.parquet"

        [pools.ids]
        format = "virtual"
        num_examples = 10

        [models.classes]
        kind = "classifier"
        factory = "small_models:classifier"
        columns = ["x"]
        label = "label"
        micro_batch_size = 16

        [models.gated]
        kind = "classifier"
        factory = "scored:gated"
        columns = ["x"]
        label = "label"
        micro_batch_size = 16

        [models.towers]
        factory = "two_tower:build"
        columns = ["image", "tokens"]
        micro_batch_size = 16

        [models.words]
        kind = "causal_lm"
        factory = "small_models:language_model"
        columns = ["tokens"]
        tokens = "tokens"
        micro_batch_size = 16

        [models.table]
        kind = "table"
        path = "scores"
        """
    )
    return path


def configured(folder: Path, *, num_examples: int = NUM_EXAMPLES) -> Config:
    return load_config(write_config(folder, num_examples=num_examples))


def job(out: Path, **changes: object) -> ScoreJob:
    given = {"pool": "p", "model": "classes", "out": out, "shard_size": 64, **changes}
    return ScoreJob(**given)  # pyright: ignore[reportArgumentType] - any of its fields


def contents(folder: Path) -> dict[str, bytes]:
    """Returns every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*.parquet"))


class Failing(Classifier):
    """Fails once it has scored all of the first shard of 64, and a half more."""

    def __init__(self) -> None:
        super().__init__(16, None)
        self.num_calls = 0

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        self.num_calls += 1
        if self.num_calls > 6:
            message = "cannot go on"
            raise ValueError(message)
        return super().forward(batch)


def failing() -> nn.Module:
    return Failing()


class AtHome(Classifier):
    """Runs in the thread that built it, and in no other."""

    def __init__(self) -> None:
        super().__init__(16, None)
        self.thread = threading.get_ident()

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        if threading.get_ident() != self.thread:
            message = "another thread"
            raise ValueError(message)
        return super().forward(batch)


def at_home() -> nn.Module:
    return AtHome()


def towers_with_nan() -> nn.Module:
    """Returns the model of ``two_tower:build`` with a weight that is not finite."""
    model = two_tower.build()
    model.image_out.bias.data[0] = float("nan")
    return model
