"""What is made once for a task and a seed, and what making it cost.

References, irreducible losses and static subsets. Each is kept on disk with the
device-seconds that it took, which every run that uses it is charged with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from benchmarks.quality.task import Columns, Data, Task, as_tensors, build
from benchmarks.quality.train import schedule

__all__ = ["Assets", "fit", "k_center", "outputs_of"]

VERSION = 1
PROXY_EPOCHS = 2  # of the model that EL2N asks
SHARE = 0.1  # of the pool is in a static subset
CHUNK = 250


@dataclasses.dataclass(frozen=True, slots=True)
class Assets:
    """The assets of a task and a seed.

    Attributes:
        task: The task.
        seed: The seed.
        data: The data of that seed.
        learning_rate: What references are trained with.
        folder: Where assets are kept.
    """

    task: Task
    seed: int
    data: Data
    learning_rate: float
    folder: Path

    def reference(self) -> tuple[Path, float]:
        """Returns the weights of a model trained on the holdout, and its cost."""
        return self._made("reference", ".safetensors", self._train_reference)

    def irreducible_losses(self) -> tuple[Path, float]:
        """Returns a table of the reference's loss of each example, and its cost."""
        return self._made("irreducible", ".parquet", self._score_irreducible)

    def subset(self, method: str) -> tuple[np.ndarray, float]:
        """Returns the ids of a tenth of the pool, and what choosing them cost.

        Args:
            method: ``random``, ``el2n`` (the highest errors of a model trained for two
                epochs) or ``k_center`` (on the reference's last hidden layer).
        """
        choose = {
            "random": self._choose_random,
            "el2n": self._choose_el2n,
            "k_center": self._choose_k_center,
        }[method]
        path, seconds = self._made(f"subset-{method}", ".npy", choose)
        return np.load(path), seconds

    def load_reference(self) -> nn.Module:
        """Returns the reference model."""
        from safetensors.torch import load_file

        model = build(self.task.model, self.seed)
        model.load_state_dict(load_file(self.reference()[0]))
        return model.eval()

    def _made(
        self, name: str, suffix: str, make: Callable[[Path], float]
    ) -> tuple[Path, float]:
        """Returns a file and the seconds it took; makes it where it is missing.

        ``make`` returns the seconds of what it used; its own are added.
        """
        key = [VERSION, self.task.describe(), self.seed, self.learning_rate, name]
        digest = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:12]
        path = self.folder / f"{self.task.name}-{self.seed}-{name}-{digest}{suffix}"
        note = path.with_suffix(".json")
        if not note.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            seconds = make(path)
            note.write_text(json.dumps({"seconds": seconds}))
        return path, float(json.loads(note.read_text())["seconds"])

    def _train_reference(self, path: Path) -> float:
        from curator.models import write_weights

        started = time.process_time()
        model = build(self.task.model, 1000 + self.seed)
        fit(
            self.task,
            model,
            self.data.holdout,
            self.task.reference_epochs,
            self.learning_rate,
            self.seed,
        )
        seconds = time.process_time() - started
        write_weights(path, model)
        return seconds

    def _score_irreducible(self, path: Path) -> float:
        spent = self.reference()[1]
        model = self.load_reference()
        started = time.process_time()
        losses = outputs_of(
            model,
            self.data.train,
            lambda batch: self.task.loss(model(batch), batch),
        )
        seconds = time.process_time() - started
        ids = np.arange(len(losses))
        pq.write_table(pa.table({"example_id": ids, "loss": losses}), path)
        return spent + seconds

    @property
    def _size(self) -> int:
        return round(SHARE * _num_rows(self.data.train))

    def _choose_random(self, path: Path) -> float:
        rng = np.random.default_rng([self.seed, 41])
        np.save(path, rng.permutation(_num_rows(self.data.train))[: self._size])
        return 0.0

    def _choose_el2n(self, path: Path) -> float:
        started = time.process_time()
        model = build(self.task.model, 2000 + self.seed)
        train = self.data.train
        fit(self.task, model, train, PROXY_EPOCHS, self.learning_rate, self.seed)
        model.eval()

        def el2n(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            error = torch.softmax(model(batch), dim=1)
            rows = torch.arange(len(error))
            error[rows, batch["label"]] -= 1
            return error.square().sum(dim=1).sqrt()

        errors = outputs_of(model, train, el2n)
        np.save(path, np.argsort(-errors, kind="stable")[: self._size])
        return time.process_time() - started

    def _choose_k_center(self, path: Path) -> float:
        spent = self.reference()[1]
        model = self.load_reference()
        started = time.process_time()
        hidden = outputs_of(model, self.data.train, model.hidden)  # type: ignore[arg-type]
        np.save(path, k_center(hidden, self._size))
        return spent + time.process_time() - started


def fit(
    task: Task,
    model: nn.Module,
    columns: Columns,
    num_epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Trains a model on columns, each epoch in another order, to a rate of zero."""
    size, rng = _num_rows(columns), np.random.default_rng([seed, 43])
    tensors = as_tensors(columns)
    steps_per_epoch = size // task.batch_size
    optimizer = task.optimizer(model.parameters(), learning_rate)
    model.train()
    order = torch.arange(size)
    for step in range(num_epochs * steps_per_epoch):
        position = step % steps_per_epoch
        if position == 0:
            order = torch.from_numpy(rng.permutation(size))
        rows = order[position * task.batch_size : (position + 1) * task.batch_size]
        batch = {name: values[rows] for name, values in tensors.items()}
        for group in optimizer.param_groups:
            progress = step / (num_epochs * steps_per_epoch)
            group["lr"] = learning_rate * schedule(progress)
        loss = task.loss(model(batch), batch)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()


@torch.inference_mode()
def outputs_of(
    model: nn.Module,
    columns: Columns,
    compute: Callable[[dict[str, torch.Tensor]], torch.Tensor],
) -> np.ndarray:
    """Returns something of every row, a chunk at a time, in evaluation mode."""
    model.eval()
    starts = range(0, _num_rows(columns), CHUNK)
    chunks = (as_tensors(columns, slice(at, at + CHUNK)) for at in starts)
    return torch.cat([compute(chunk) for chunk in chunks]).numpy()


def k_center(points: np.ndarray, size: int) -> np.ndarray:
    """Returns rows that are far apart: each next one is the farthest from all so far.

    Greedy k-center (Sener & Savarese 2018, arXiv 1708.00489). Starts from the row
    farthest from the mean; ``points`` is [N, D].
    """
    squares = np.einsum("nd,nd->n", points, points)
    chosen = np.empty(size, np.int64)
    nearest = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    for i in range(size):
        chosen[i] = at = int(nearest.argmax())
        distance = squares + squares[at] - 2 * (points @ points[at])
        nearest = distance if i == 0 else np.minimum(nearest, distance)
        nearest[at] = -np.inf
    return chosen


def _num_rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))
