"""The thread that defines a session's steps ahead of the trainer."""

from __future__ import annotations

import logging
import threading

# Loaded at its first use otherwise, in the thread; a DataLoader that forks its workers
# meanwhile leaves them with a lock on it that nobody gives back.
import numpy.random  # noqa: F401  # pyright: ignore[reportUnusedImport] - see above

from curator.config import SessionSpec
from curator.engine._bounds import Bounds
from curator.engine._definer import Definer
from curator.engine._dependencies import Dependencies
from curator.engine._epochs import Epochs
from curator.engine._features import FeatureSource
from curator.engine._publication import Publication
from curator.engine._retention import Retention
from curator.engine._skips import Skips
from curator.engine._steps import READY_STEPS, DefinedSteps

__all__ = ["RunAhead"]

_log = logging.getLogger(__name__)


class RunAhead:
    """Defines each step as soon as it may follow those before it.

    Where the trainer computes the features, only steps that are skipped.
    """

    def __init__(
        self,
        name: str,
        spec: SessionSpec,
        *,
        epochs: Epochs,
        features: FeatureSource,
        dependencies: Dependencies,
        publication: Publication,
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
            epochs: How long it is.
            features: Whether there are models to wait for.
            dependencies: What steps wait for.
            publication: Whether the learner has weights.
            skips: Which steps are passed over.
            definer: Defines the others.
            retention: Lets old ones go.
            bounds: Whether the session is open.
            steps: Which steps are defined, and asked for.
            condition: The engine's; what is looked at here changes under it.
        """
        self._name = name
        self._spec = spec
        self._depends_on_reports = spec.depends_on_reports
        self._epochs = epochs
        self._features = features
        self._dependencies = dependencies
        self._publication = publication
        self._skips = skips
        self._definer = definer
        self._retention = retention
        self._bounds = bounds
        self._steps = steps
        self._condition = condition
        self._thread = threading.Thread(
            target=self._run, name=f"curator-session-{name}", daemon=True
        )

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Lets go of what is waited for. Called with the lock held, once closed."""
        self._definer.stop()

    def join(self) -> None:
        """Waits until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: (
                        self._bounds.is_closed
                        or self._may_define(self._steps.num_defined)
                    )
                )
                if self._bounds.is_closed:
                    return
                step = self._steps.num_defined
            try:
                if step in self._skips:
                    self._definer.define_skipped(
                        step, self._dependencies.has_candidates
                    )
                elif self._depends_on_reports or self._features.of_models:
                    self._definer.define(step, self._may_define)
                else:
                    self._definer.define_ahead(step, self._dependencies.has_candidates)
                self._retention.discard()
            except Exception as error:
                if self._bounds.is_closed:
                    return
                _log.warning("session %r: step %d failed: %s", self._name, step, error)
                self._steps.fail(error)

    def _may_define(self, step: int) -> bool:
        """Whether a step may follow those before it now. Called with the lock held."""
        num_steps = self._epochs.num_steps
        if num_steps is not None and step >= num_steps:
            return False
        if step in self._skips:
            return self._dependencies.has_candidates(step)
        if self._spec.features == "trainer":
            return False
        if step > self._steps.last_asked + READY_STEPS:
            return False
        if self._spec.needs_learner and self._publication.awaits_initial:
            return False
        if not self._dependencies.has_candidates(step):
            return False
        return self._dependencies.is_reported(step)
