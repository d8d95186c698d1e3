"""From a configuration to what scores: in this process, or on a Ray cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from curator.config import Config, ModelSpec
from curator.engine._executor import Executor, LocalExecutor
from curator.engine._hosted_scorer import ScoringPlan
from curator.engine._ray_executor import RayExecutor
from curator.engine._ray_process import RayProcess
from curator.engine._scoring_worker import ScoringWorker
from curator.models import Scorer, ScoreTable, build_scorer
from curator.pools import Pool
from curator.store import FeatureStore

__all__ = ["Executors"]


class Executors:
    """Makes the executors of a process, which share its connection to Ray."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ray = RayProcess()

    def build(self, model: ModelSpec) -> Scorer:
        """Returns a model that scores here; for a cluster one that says what it is.

        Raises:
            CuratorError: As :func:`curator.models.build_scorer`.
        """
        if self._config.server.executor == "ray":
            model = dataclasses.replace(model, device="cpu")
        return build_scorer(model)

    def make(
        self,
        name: str,
        pool_name: str,
        pool: Pool,
        *,
        learner: tuple[ModelSpec, Scorer] | None = None,
        reference: tuple[ModelSpec, Scorer | ScoreTable] | None = None,
        reference_cache: Mapping[str, FeatureStore] | None = None,
    ) -> Executor:
        """Returns an executor.

        Args:
            name: What it scores for, a session or a job; one executor per name.
            pool_name: The pool's name in the configuration, which may not have it.
            pool: The pool.
            learner: The model being trained, as :meth:`build` returns it.
            reference: The fixed model, or its table.
            reference_cache: Where outputs of the reference are kept, by their names.
        """
        config, cache = self._config, reference_cache or {}
        given = {"learner": learner, "reference": reference}
        models = {
            role: (model[0], model[1].fingerprint)
            for role, model in given.items()
            if model is not None and not isinstance(model[1], ScoreTable)
        }
        own_learner = None if learner is None else learner[1]
        own_reference = None if reference is None else reference[1]
        if config.server.executor == "local" or not models:
            return LocalExecutor(
                ScoringWorker(
                    pool,
                    learner=own_learner,
                    reference=own_reference,
                    reference_cache=cache,
                )
            )
        plan = ScoringPlan(
            session=name,
            ray=config.ray,
            pool=config.pools.get(pool_name),
            pool_fingerprint=pool.fingerprint,
            num_examples=pool.num_examples,
            models=models,
            python_path=tuple(config.server.python_path),
        )
        return RayExecutor(
            self._ray,
            plan,
            pool=pool,
            learner=own_learner,
            reference=own_reference,
            reference_cache=cache,
        )

    def close(self) -> None:
        """Lets go of the cluster."""
        self._ray.close()
