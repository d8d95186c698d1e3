"""Selecting with features that the trainer computed."""

from __future__ import annotations

import threading

import numpy as np
from jaxtyping import Int64

from curator.config import SessionSpec
from curator.engine._bounds import Bounds
from curator.engine._definer import Definer
from curator.engine._dependencies import Dependencies
from curator.engine._epochs import Epochs
from curator.engine._features import FeatureSource
from curator.engine._feedback import Feedback, some
from curator.engine._retention import Retention
from curator.engine._skips import Skips
from curator.engine._steps import DefinedSteps
from curator.errors import FeatureError, SessionError
from curator.ledger import StepRecord
from curator.types import Features, SuperBatch

__all__ = ["TrainerFeatures"]


class TrainerFeatures:
    """Takes features of the next step's candidates, checks them, and selects."""

    def __init__(
        self,
        name: str,
        spec: SessionSpec,
        *,
        epochs: Epochs,
        features: FeatureSource,
        feedback: Feedback,
        dependencies: Dependencies,
        skips: Skips,
        definer: Definer,
        retention: Retention,
        bounds: Bounds,
        steps: DefinedSteps,
        condition: threading.Condition,
    ) -> None:
        """Keeps what it works with.

        Args:
            name: The session.
            spec: What it is.
            epochs: Which candidates a step has.
            features: Adds what is not the trainer's to compute.
            feedback: Which steps are closed.
            dependencies: What steps wait for.
            skips: Which steps are passed over.
            definer: Selects, and defines the step.
            retention: Lets old steps go.
            bounds: Which steps there are, and whether the session is open.
            steps: Which steps are defined.
            condition: The engine's; notified of each step that is defined.
        """
        self._name = name
        self._spec = spec
        self._epochs = epochs
        self._features = features
        self._feedback = feedback
        self._dependencies = dependencies
        self._skips = skips
        self._definer = definer
        self._retention = retention
        self._bounds = bounds
        self._steps = steps
        self._condition = condition
        self._selecting = threading.Lock()

    def select(
        self, step: int, ids: Int64[np.ndarray, " B"], features: Features
    ) -> StepRecord:
        """Defines a step; see :meth:`SessionEngine.select`."""
        if self._spec.features != "trainer":
            msg = (
                f"session {self._name!r} scores on the server; select() is for "
                "sessions with features = 'trainer'"
            )
            raise SessionError(msg)
        self._bounds.check_step(step)
        super_batch = self._epochs.super_batch(step)
        with self._condition:  # what lies before it and is skipped, is soon defined
            self._condition.wait_for(
                lambda: (
                    self._bounds.is_closed
                    or self._steps.num_defined >= step
                    or self._steps.num_defined not in self._skips
                )
            )
            self._bounds.check_open()
        with self._selecting:
            if step < self._steps.num_defined:
                return self._steps.get(step)
            self._check(super_batch, ids)
            complete, result = self._features.complete(super_batch, features)
            record = self._definer.append(super_batch, complete, result, None)
            self._retention.discard()
            return record

    def _check(self, super_batch: SuperBatch, ids: Int64[np.ndarray, " B"]) -> None:
        """Checks that it is this step's turn, and that these are its candidates."""
        step = super_batch.step
        if step > self._steps.num_defined:
            msg = (
                "steps are selected in order: step "
                f"{self._steps.num_defined} comes next; got step {step}"
            )
            raise SessionError(msg)
        if not np.array_equal(ids, super_batch.ids):
            msg = (
                f"the features are not those of step {step}: its super-batch has "
                f"{len(super_batch.ids)} candidates {some(super_batch.ids)}; got "
                f"{len(ids)} rows for {some(ids)}"
            )
            raise FeatureError(msg)
        if not self._dependencies.is_reported(step):
            msg = (
                f"step {step} is selected as of the report of step "
                f"{step - 1 - self._spec.max_ahead}, and step "
                f"{self._feedback.next_step} is not reported"
            )
            raise SessionError(msg)
