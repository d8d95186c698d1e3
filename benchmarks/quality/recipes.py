"""Recipes: how batches are chosen, each a few lines over the public client."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.parquet as pq

import curator
from benchmarks.quality.assets import SHARE, Assets
from benchmarks.quality.task import Task
from benchmarks.quality.train import DEVICE, Feature, Placebo, features_of
from curator import ModelSpec, SessionSpec
from curator.policies import (
    Importance,
    Joint,
    SelectiveBackprop,
    Softmax,
    TopK,
)
from curator.samplers import RS2

__all__ = [
    "POOL",
    "MakeRecipe",
    "Recipe",
    "Setting",
    "charged",
    "counted",
    "device_seconds",
    "epochs",
    "importance",
    "joint",
    "like",
    "placebo",
    "random_equal",
    "resourced",
    "rho_cheap",
    "rs2",
    "selective_backprop",
    "service_random",
    "short",
    "static",
    "top_k",
]

POOL = "pool"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What an arm may look at.

    Attributes:
        task: What is trained.
        seed: Of data, weights and batches.
        assets: References and subsets.
        earlier: Returns the result of another arm of the same task and seed.
        backward_ratio: What a backward pass costs, in forward passes, as measured.
    """

    task: Task
    seed: int
    assets: Assets
    earlier: Callable[[str], dict[str, Any]]
    backward_ratio: float

    def spec(self, **arguments: Any) -> SessionSpec:
        """Returns a session of this task and seed."""
        return SessionSpec(
            pool=POOL, batch_size=self.task.batch_size, seed=self.seed, **arguments
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run is made of.

    Attributes:
        spec: The session.
        models: Models that it names, beside ``learner``.
        proxy: Whether the task's proxy is the learner of the session, trained on the
            same batches, in the place of the model.
        rows: Which rows the pool has; all by default.
        use_weights: Whether the trainer multiplies losses by the batch's weights.
        placebo: Set where scores are given to the wrong candidates.
        reference_seconds: What was spent before the run.
    """

    spec: SessionSpec
    models: dict[str, ModelSpec] = dataclasses.field(
        default_factory=dict[str, ModelSpec]
    )
    proxy: bool = False
    rows: np.ndarray | None = None
    use_weights: bool = True
    placebo: Placebo | None = None
    reference_seconds: float = 0.0


MakeRecipe: TypeAlias = Callable[[Setting], Recipe]


# --- arms that count in epochs: what may be left out? ---------------------------------


def epochs(
    setting: Setting, sampler: Any = None, *, use_weights: bool = True
) -> Recipe:
    """All epochs of the task, of whatever the sampler takes into them."""
    given = {} if sampler is None else {"sampler": sampler}
    spec = setting.spec(num_epochs=setting.task.num_epochs, **given)
    return Recipe(spec=spec, use_weights=use_weights)


def random_equal(setting: Setting) -> Recipe:
    """As many examples an epoch as InfoBatch had on average, each epoch others."""
    pruned, full = setting.earlier("infobatch"), setting.earlier("full")
    ratio = pruned["steps"] / full["steps"]
    sampler = RS2(ratio=ratio, replace=True)
    return Recipe(spec=setting.spec(num_steps=pruned["steps"], sampler=sampler))


def like(other: str, setting: Setting) -> Recipe:
    """Uniform batches, in as many steps as another arm had."""
    return Recipe(spec=setting.spec(num_steps=setting.earlier(other)["steps"]))


# --- arms on a tenth of the pool ------------------------------------------------------


def _tenth_steps(setting: Setting) -> int:
    num_rows = len(next(iter(setting.assets.data.train.values())))
    per_round = round(SHARE * num_rows) // setting.task.batch_size
    return per_round * setting.task.num_rounds


def rs2(setting: Setting) -> Recipe:
    """Another tenth of the pool each round."""
    spec = setting.spec(num_steps=_tenth_steps(setting), sampler=RS2(ratio=SHARE))
    return Recipe(spec=spec)


def static(method: str, setting: Setting) -> Recipe:
    """The same tenth of the pool each round."""
    rows, seconds = setting.assets.subset(method)
    spec = setting.spec(num_steps=_tenth_steps(setting))
    return Recipe(spec=spec, rows=rows, reference_seconds=seconds)


# --- arms that score: which of the candidates? ----------------------------------------


def short(setting: Setting) -> Recipe:
    """Uniform batches, in as many steps as the arms that score have."""
    return Recipe(spec=setting.spec(num_steps=setting.task.short_steps))


def _scored(
    setting: Setting,
    policy: Any,
    *,
    super_batch_size: int | None = None,
    reference: bool = False,
    proxy: bool = False,
    learner: bool = True,
) -> Recipe:
    task, seconds = setting.task, 0.0
    models: dict[str, ModelSpec] = {}
    if reference and task.model.kind == "two_tower":
        path, seconds = setting.assets.reference()
        models["reference"] = dataclasses.replace(task.model, weights=str(path))
    elif reference:
        path, seconds = setting.assets.irreducible_losses()
        models["reference"] = ModelSpec(kind="table", path=str(path))
    spec = setting.spec(
        num_steps=task.short_steps,
        super_batch_size=super_batch_size or task.super_batch_size,
        policy=policy,
        learner="learner" if learner else None,
        reference="reference" if reference else None,
    )
    return Recipe(spec=spec, models=models, proxy=proxy, reference_seconds=seconds)


def _loss(task: Task) -> Any:
    """What a policy's score is made of: one loss per example, or costs of pairs."""
    return "sigmoid" if task.model.kind == "two_tower" else "scalar"


def top_k(score: Any, setting: Setting, **arguments: Any) -> Recipe:
    """The candidates with the highest score; RHO-LOSS if that is learnability."""
    policy = TopK(score=score, loss=_loss(setting.task))
    learner = score != "easy_reference"
    reference = score != "hard_learner"
    return _scored(setting, policy, reference=reference, learner=learner, **arguments)


def rho_cheap(setting: Setting) -> Recipe:
    """RHO-LOSS, scored by the proxy, of four times as many candidates.

    Of ten times as many it picks what only the proxy finds hard: on seeds 0 to 2, 100
    and 102 to 104 that was no better than uniform batches, at equal steps. Four times
    was chosen on seeds 102 to 104.
    """
    size = 4 * setting.task.batch_size
    return top_k("learnability", setting, proxy=True, super_batch_size=size)


def joint(setting: Setting) -> Recipe:
    """JEST, of a contrastive loss."""
    # Temperature and chunks as in the quickstart.
    policy = Joint(loss="sigmoid", num_chunks=8, temperature=0.2)
    return _scored(setting, policy, reference=True)


def service_random(setting: Setting) -> Recipe:
    """Candidates are scored as for RHO-LOSS, and drawn from as if they were not."""
    policy = Softmax(score="learnability", loss=_loss(setting.task), beta=0.0)
    return _scored(setting, policy, reference=True)


def selective_backprop(setting: Setting) -> Recipe:
    """Losses that are high beside those of the last steps."""
    # Half of the candidates are kept, as in No Train No Gain.
    policy = SelectiveBackprop(beta=1.0, ring_size=5000)
    return _scored(setting, policy, super_batch_size=2 * setting.task.batch_size)


def importance(setting: Setting) -> Recipe:
    """Large gradients, and smaller weights for them."""
    # Three times as many candidates as are trained on, as in the paper.
    policy = Importance(backward_ratio=setting.backward_ratio)
    return _scored(setting, policy, super_batch_size=3 * setting.task.batch_size)


def placebo(of: MakeRecipe, setting: Setting) -> Recipe:
    """The same policy on the same scores, in an order that says nothing."""
    recipe, task = of(setting), setting.task
    spec = dataclasses.replace(
        recipe.spec, features="trainer", learner=None, reference=None
    )
    if task.model.kind == "two_tower":
        reference = setting.assets.load_reference()

        def say(candidates: curator.Batch) -> Feature:
            columns = {name: candidates[name] for name in candidates.columns}
            return features_of(task, reference, columns)
    else:
        table = pq.read_table(Path(str(recipe.models["reference"].path)))
        losses = table["loss"].to_numpy()

        def say(candidates: curator.Batch) -> Feature:
            return losses[candidates.ids.numpy()]

    return dataclasses.replace(
        recipe, spec=spec, models={}, placebo=Placebo(say, setting.seed)
    )


# --- the same, charged ----------------------------------------------------------------


def device_seconds(result: Mapping[str, Any]) -> float:
    """Returns what a run cost on the device, without its reference."""
    return sum(result["seconds"][name] for name in DEVICE)


def charged(of: MakeRecipe, name: str, base: str, setting: Setting) -> Recipe:
    """The arm, in as many steps as the baseline's device-seconds buy it."""
    free, uniform = setting.earlier(name), setting.earlier(base)
    ratio = (device_seconds(uniform) / uniform["steps"]) / (
        device_seconds(free) / free["steps"]
    )
    steps = max(1, math.floor(uniform["steps"] * ratio))
    recipe = of(setting)
    return dataclasses.replace(
        recipe, spec=dataclasses.replace(recipe.spec, num_steps=steps)
    )


def counted(of: MakeRecipe, base: str, setting: Setting) -> Recipe:
    """The arm, with scoring charged in forward passes and nothing else.

    As No Train No Gain counts: what it costs to ship weights to a scorer and to start a
    forward pass is left out, and a model this small is mostly that.
    """
    recipe, uniform = of(setting), setting.earlier(base)
    passes = 1 + setting.backward_ratio
    scored = recipe.spec.super_batch_size / recipe.spec.batch_size
    if recipe.spec.learner is None:
        scored = 0.0
    elif recipe.proxy:
        # The proxy is trained, too.
        scored = setting.task.proxy_share * (scored + passes)
    steps = max(1, math.floor(uniform["steps"] * passes / (passes + scored)))
    return dataclasses.replace(
        recipe, spec=dataclasses.replace(recipe.spec, num_steps=steps)
    )


def resourced(name: str, base: str, setting: Setting) -> Recipe:
    """Uniform batches, in as many steps as another arm's device-seconds buy."""
    other, uniform = setting.earlier(name), setting.earlier(base)
    steps = math.floor(
        device_seconds(other) / (device_seconds(uniform) / uniform["steps"])
    )
    return Recipe(spec=setting.spec(num_steps=max(1, steps)))
