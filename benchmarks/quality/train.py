"""The trainer: one loop for every arm, on the public client alone.

Device-seconds are CPU seconds. What the trainer's own thread spends in its steps is
training; what it spends on publishing, or on scoring by itself, is scoring; all else
that the process spends is the service's. Evaluation is counted nowhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import curator
from benchmarks.quality.task import Task

__all__ = [
    "DEVICE",
    "Feature",
    "Outcome",
    "Placebo",
    "Trainer",
    "progress_after",
    "schedule",
]

Feature = np.ndarray | curator.PairEmbeddings

WARM_UP = 0.1  # of the run
DEVICE = ("train", "score", "pick")  # what an accelerator would do
NUM_EVALUATIONS = 10


def schedule(progress: float) -> float:
    """Returns the learning rate as a share of its peak: a warm-up, then a cosine to 0.

    A function of the progress alone, so that it is fully decayed at the end of every
    arm, however many steps that arm turns out to have.
    """
    warm = min(1.0, progress / WARM_UP)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def progress_after(batch: curator.Batch, spec: curator.SessionSpec, more: int) -> float:
    """Returns which share of its run a trainer has behind it, ``more`` steps on.

    Without a fixed number of steps, epochs count equally and each is as long as its
    plan says (``batch.epoch_num_steps``, known before it starts).
    """
    if spec.num_steps is not None:
        return (batch.step + more) / spec.num_steps
    assert spec.num_epochs is not None
    within = (batch.step + more - batch.epoch_first_step) / batch.epoch_num_steps
    return (batch.epoch + within) / spec.num_epochs


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to.

    Attributes:
        steps: Optimizer steps.
        examples: Examples trained on.
        seconds: Device-seconds by what they were spent on: ``train``, ``score``,
            ``pick``, and ``serve`` (reading rows, the ledger, feedback).
        wall: Seconds on the wall, without evaluations.
        stall: Of these, how long the trainer waited for batches.
        metrics: Measured after the last step.
        curve: One entry per evaluation: ``step``, ``device`` (the seconds of ``DEVICE``
            until then) and the metrics.
        cost: What the session says that selection cost.
        diagnostics: Shares of what was trained on, by the column that marks it.
    """

    steps: int
    examples: int
    seconds: dict[str, float]
    wall: float
    stall: float
    metrics: dict[str, float]
    curve: list[dict[str, float]]
    cost: dict[str, float]
    diagnostics: dict[str, float]


class _Clock:
    """CPU seconds of this thread by purpose, and of the process, while it runs."""

    def __init__(self) -> None:
        self.by: dict[str, float] = {"train": 0.0, "score": 0.0}
        self._wall = self._process = 0.0
        self._resume()

    def _resume(self) -> None:
        self._since = (time.perf_counter(), time.process_time())

    @contextlib.contextmanager
    def spent_on(self, purpose: str) -> Generator[None]:
        """Counts what this thread does."""
        started = time.thread_time()
        yield
        self.by[purpose] += time.thread_time() - started

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Counts nothing."""
        wall, process = self.wall, self.process
        yield
        self._wall, self._process = wall, process
        self._resume()

    @property
    def wall(self) -> float:
        return self._wall + time.perf_counter() - self._since[0]

    @property
    def process(self) -> float:
        return self._process + time.process_time() - self._since[1]

    def seconds(self, cost: Mapping[str, float]) -> dict[str, float]:
        """Returns device-seconds by purpose.

        The service says how long scoring and picking took on the wall; where others
        used the core meanwhile, that is more than the process spent, and is cut to it.
        """
        service = max(0.0, self.process - sum(self.by.values()))
        walls = [cost.get("scoring_seconds", 0.0), cost.get("selection_seconds", 0.0)]
        share = min(1.0, service / max(sum(walls), 1e-9))
        score, pick = (share * wall for wall in walls)
        return {
            "train": self.by["train"],
            "score": self.by["score"] + score,
            "pick": pick,
            "serve": max(0.0, service - score - pick),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Placebo:
    """Scores as they are, given to the wrong candidates.

    Attributes:
        reference: Returns what the reference says of candidates.
        seed: Of the orders.
    """

    reference: Callable[[curator.Batch], Feature]
    seed: int


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """A model and how it is trained.

    Attributes:
        task: What is trained.
        model: The model.
        learning_rate: At its peak.
        evaluate: Returns the metrics.
        use_weights: Whether the batch's weights multiply the losses.
        proxy: A second, cheaper model that is trained on the same batches and published
            in the place of the model.
        placebo: For sessions whose features come from the trainer.
    """

    task: Task
    model: nn.Module
    learning_rate: float
    evaluate: Callable[[nn.Module], dict[str, float]]
    use_weights: bool = True
    proxy: nn.Module | None = None
    placebo: Placebo | None = None

    def run(self, session: curator.Session) -> Outcome:
        """Trains until the session ends."""
        task, spec = self.task, session.info.spec
        clock = _Clock()
        train = self._trainee(self.model)
        train_proxy = None if self.proxy is None else self._trainee(self.proxy)
        published = self.model if self.proxy is None else self.proxy
        curve: list[dict[str, float]] = []
        seen = dict.fromkeys(task.diagnostics, 0.0)
        metrics: dict[str, float] = {}
        steps = examples = 0
        with clock.spent_on("score"):
            session.publish(published)
        for batch in self._batches(session, clock):
            columns = {name: batch[name] for name in batch.columns}
            weights = batch.weights if self.use_weights else None
            rate = schedule(progress_after(batch, spec, 0))
            with clock.spent_on("train"):
                loss = train(columns, weights, rate)
            with clock.spent_on("score"):
                if train_proxy is not None:
                    train_proxy(columns, weights, rate)
                session.publish(published)
            steps, examples = steps + 1, examples + len(batch)
            for name in seen:
                seen[name] += float(columns[name].float().mean())
            done = progress_after(batch, spec, 1)
            if done >= (len(curve) + 1) / NUM_EVALUATIONS - 1e-9:
                with clock.paused():
                    seconds = clock.seconds(session.describe().cost)
                    metrics = self.evaluate(self.model)
                device = sum(seconds[name] for name in DEVICE)
                curve.append({"step": steps, "device": device, **metrics})
            session.report(batch, loss=loss)
        cost = {name: float(v) for name, v in session.describe().cost.items()}
        return Outcome(
            steps=steps,
            examples=examples,
            seconds=clock.seconds(cost),
            wall=clock.wall,
            stall=session.stall_seconds,
            metrics=metrics,
            curve=curve,
            cost=cost,
            diagnostics={name: total / max(1, steps) for name, total in seen.items()},
        )

    def _trainee(
        self, model: nn.Module
    ) -> Callable[[Mapping[str, Any], Tensor | None, float], Tensor]:
        """Returns one optimizer step of a model."""
        model.train()
        optimizer = self.task.optimizer(model.parameters(), self.learning_rate)

        def step(
            columns: Mapping[str, Any], weights: Tensor | None, rate: float
        ) -> Tensor:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * rate
            loss = self.task.loss(model(columns), columns)
            optimizer.zero_grad()
            (loss if weights is None else loss * weights).mean().backward()
            optimizer.step()
            return loss.detach()

        return step

    def _batches(
        self, session: curator.Session, clock: _Clock
    ) -> Iterator[curator.Batch]:
        if self.placebo is None:
            yield from session.batches(format="torch")
            return
        for candidates in session.super_batches(format="torch"):
            with clock.spent_on("score"):
                rng = np.random.default_rng([self.placebo.seed, candidates.step])
                order = rng.permutation(len(candidates))
                columns = {name: candidates[name] for name in candidates.columns}
                ours = features_of(self.task, self.model, columns)
                theirs = self.placebo.reference(candidates)
                batch = session.select(
                    candidates,
                    learner=reordered(ours, order),
                    reference=reordered(theirs, order),
                )
            yield batch


@torch.inference_mode()
def features_of(task: Task, model: nn.Module, columns: Mapping[str, Any]) -> Feature:
    """Returns what a scorer would say of candidates: losses, or embeddings."""
    was_training = model.training
    model.eval()
    if task.model.kind != "two_tower":
        size, count = task.model.micro_batch_size, len(next(iter(columns.values())))
        chunks = [
            {name: values[start : start + size] for name, values in columns.items()}
            for start in range(0, count, size)
        ]
        losses = [task.loss(model(chunk), chunk) for chunk in chunks]
        model.train(was_training)
        return torch.cat(losses).numpy()
    outputs = model(columns)
    model.train(was_training)
    return curator.PairEmbeddings(
        queries=outputs["queries"].numpy(),
        targets=outputs["targets"].numpy(),
        logit_scale=float(outputs["logit_scale"]),
        logit_bias=float(outputs["logit_bias"]),
    )


def reordered(feature: Feature, order: np.ndarray) -> Feature:
    """Returns a feature with its rows in another order."""
    if isinstance(feature, np.ndarray):
        return feature[order]
    return dataclasses.replace(
        feature, queries=feature.queries[order], targets=feature.targets[order]
    )
