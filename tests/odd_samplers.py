"""Samplers and policies whose every choice can be followed by hand."""

import dataclasses
from typing import ClassVar

import numpy as np

from curator.samplers import Run
from curator.types import Selection


@dataclasses.dataclass(frozen=True)
class Listed:
    """A plan of given ids; weights 2 for each, where there are any."""

    ids: np.ndarray
    weight: float | None = None

    @property
    def num_examples(self):
        return len(self.ids)

    @property
    def mean_weight(self):
        return 1.0 if self.weight is None else self.weight

    def take(self, start, stop):
        ids = self.ids[start:stop].copy()
        if self.weight is None:
            return ids, None
        return ids, np.full(len(ids), self.weight, np.float32)


class WorstPlanner:
    """Plans all examples first, then the worse half of those that have a loss."""

    num_examples_per_epoch = None

    def __init__(self, run: Run) -> None:
        self._run = run
        self._losses = np.full(run.num_examples, np.nan)
        self.calls = []

    def plan(self, epoch):
        self.calls.append(epoch)
        known = np.flatnonzero(np.isfinite(self._losses))
        if not len(known):
            return Listed(np.arange(self._run.num_examples))
        order = known[np.argsort(-self._losses[known], kind="stable")]
        size = max(self._run.super_batch_size, self._run.num_examples // 2)
        return Listed(order[:size], weight=2.0)

    def observe(self, ids, losses):
        self.calls.append(ids.tolist())
        known = np.isfinite(losses)
        self._losses[ids[known]] = losses[known]


@dataclasses.dataclass(frozen=True)
class Worst:
    """See :class:`WorstPlanner`."""

    name: ClassVar[str] = "worst"

    columns = frozenset()

    def start(self, run):
        return WorstPlanner(run)


@dataclasses.dataclass(frozen=True)
class Diary:
    """Selects the first candidates, and remembers their ids and what it remembered."""

    name: ClassVar[str] = "diary"
    needs = frozenset({"memory"})
    memory_rows = 5

    def select(self, ids, features, num_selected, noise):
        memory = features["memory"]
        seen = -1.0 if not len(memory) else float(memory[0, 0])
        return Selection(
            indices=np.arange(num_selected),
            weights=np.ones(num_selected, np.float32),
            remember=ids[:num_selected, None].astype(np.float32),
            stats={"num_oldest": seen, "num_remembered": float(len(memory))},
        )


@dataclasses.dataclass(frozen=True)
class Highest:
    """Selects the candidates with the highest value in a column of the pool."""

    name: ClassVar[str] = "highest"
    needs = frozenset({"pool.number"})

    def select(self, ids, features, num_selected, noise):
        order = np.argsort(-features["pool.number"], kind="stable")
        return Selection(
            indices=order[:num_selected], weights=np.ones(num_selected, np.float32)
        )
