"""The trainer: an ordinary loop, the same one for every arm.

Nothing in it knows which policy chose the batches. That is the point.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

import curator
from examples.quickstart.data import Pairs
from examples.quickstart.model import sigmoid_loss

WARM_UP = 50  # steps
WEIGHT_DECAY = 1e-4


@dataclasses.dataclass
class Clock:
    """Wall and CPU seconds of this process while it trains; evaluation is not counted.

    Attributes:
        wall: Seconds on the wall.
        cpu: CPU seconds of all threads.
    """

    wall: float = 0.0
    cpu: float = 0.0
    _since: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Goes on counting."""
        self._since = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Stops counting."""
        self.wall += time.perf_counter() - self._since[0]
        self.cpu += time.process_time() - self._since[1]


@dataclasses.dataclass(frozen=True)
class Point:
    """One evaluation.

    Attributes:
        step: Steps trained.
        wall: Wall-clock seconds since the arm began, without evaluations.
        top1: Share of held-out images whose own name is the most similar of all names.
        top5: Share whose own name is among the five most similar.
        mismatched: Share of mismatched pairs in what was trained on since the last one.
    """

    step: int
    wall: float
    top1: float
    top5: float
    mismatched: float


@torch.inference_mode()
def evaluate(model: nn.Module, task: Pairs) -> tuple[float, float]:
    """Returns top-1 and top-5 accuracy of image-to-name retrieval."""
    model.eval()
    outputs = model(
        {"image": torch.from_numpy(task.image), "tokens": torch.from_numpy(task.tokens)}
    )
    model.train()
    similarity = outputs["queries"] @ outputs["targets"].T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    return float((rank < 1).float().mean()), float((rank < 5).float().mean())


class Training:
    """A model, its optimizer and its schedule: a warm-up, then a cosine to zero."""

    def __init__(self, model: nn.Module, num_steps: int, learning_rate: float) -> None:
        self.model = model.train()
        self._num_steps = num_steps
        self._learning_rate = learning_rate
        self._optimizer = torch.optim.AdamW(
            model.parameters(), weight_decay=WEIGHT_DECAY, fused=True
        )

    def step(
        self, number: int, image: Tensor, tokens: Tensor, weights: Tensor
    ) -> Tensor:
        """Takes one optimizer step; returns the un-reduced losses, shape ``[B]``."""
        decay = 0.5 * (1 + math.cos(math.pi * number / self._num_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * decay * min(1, (number + 1) / WARM_UP)
        loss = sigmoid_loss(self.model({"image": image, "tokens": tokens}))
        self._optimizer.zero_grad()
        (loss * weights).mean().backward()
        self._optimizer.step()
        return loss


def train_on_curated(
    model: nn.Module, pairs: Pairs, num_steps: int, learning_rate: float, seed: int
) -> Clock:
    """Trains the reference model on the curated set; returns what that cost."""
    clock = Clock()
    clock.start()
    training = Training(model, num_steps, learning_rate)
    batches = _epochs(len(pairs.caption), 128, np.random.default_rng([seed, 77]))
    weights = torch.ones(128)
    for number in range(num_steps):
        ids = next(batches)
        image = torch.from_numpy(pairs.image[ids])
        tokens = torch.from_numpy(pairs.tokens[ids])
        training.step(number, image, tokens, weights)
    clock.stop()
    return clock


def train_from_session(
    model: nn.Module,
    session: curator.Session,
    task: Pairs,
    learning_rate: float,
    num_evaluations: int,
    show: Callable[[Point], None],
) -> tuple[list[Point], Clock]:
    """Trains on the batches of a session until it ends.

    Returns:
        The evaluations, evenly spaced with the last one after the last step; and what
        training cost this process.
    """
    num_steps = session.info.spec.num_steps or 0
    points: list[Point] = []
    mismatched: list[float] = []
    clock = Clock()
    clock.start()
    training = Training(model, num_steps, learning_rate)
    for batch in session.batches(format="torch"):
        loss = training.step(batch.step, batch["image"], batch["tokens"], batch.weights)
        session.publish(model)
        session.report(batch, loss=loss)
        mismatched.append(float(batch["mismatched"].float().mean()))
        done = batch.step + 1
        if done * num_evaluations // num_steps > len(points):
            clock.stop()
            top1, top5 = evaluate(model, task)
            share = float(np.mean(mismatched))
            points.append(Point(done, clock.wall, top1, top5, share))
            mismatched.clear()
            show(points[-1])
            clock.start()
    clock.stop()
    return points, clock


def _epochs(
    num_examples: int, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    while True:
        order = rng.permutation(num_examples)
        for start in range(0, num_examples - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
