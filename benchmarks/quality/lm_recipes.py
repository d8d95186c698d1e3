"""Recipes for language models: UDS, its control for length, and equal tokens.

Tokens are supervised ones, those that a loss is taken of: a policy that picks long
examples trains on more of them in a step. Every example is padded to one length, so
that a step costs the same whatever was picked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.quality.lm import BUCKETS
from benchmarks.quality.recipes import MakeRecipe, Recipe, Setting
from curator.policies import UDS, Softmax

__all__ = [
    "equal_tokens",
    "lengths_of",
    "rows_like",
    "scored_random",
    "tokens",
    "uds",
]


def uds(setting: Setting, **fields: Any) -> Recipe:
    """UDS, with its defaults but for some fields."""
    return _scored(setting, UDS(**fields))


def scored_random(setting: Setting) -> Recipe:
    """Candidates are scored by their loss, and drawn from as if they were not."""
    return _scored(setting, Softmax(score="hard_learner", beta=0.0))


def _scored(setting: Setting, policy: Any) -> Recipe:
    spec = setting.spec(
        num_steps=setting.task.short_steps,
        super_batch_size=setting.task.super_batch_size,
        policy=policy,
        learner="learner",
    )
    return Recipe(spec=spec)


def lengths_of(name: str, setting: Setting) -> Recipe:
    """Uniform batches of as long examples as another arm picked.

    The pool of the session is drawn for it: from each bucket of lengths as many
    examples as the arm picked from it over its whole run. What that run picked is read
    from its diagnostics. The session itself has no policy.
    """
    other, pool = setting.earlier(name), setting.assets.data.train
    shares = [other["diagnostics"][bucket] for bucket in BUCKETS]
    buckets = np.stack([pool[bucket] for bucket in BUCKETS]).argmax(axis=0)
    rng = np.random.default_rng([setting.seed, 59])
    rows = rows_like(np.array(shares), buckets, other["examples"], rng)
    return Recipe(spec=setting.spec(num_steps=other["steps"]), rows=rows)


def rows_like(
    shares: np.ndarray, buckets: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns rows of which given shares are in each bucket, else at random.

    No row of a bucket is taken again before all of them were.

    Args:
        shares: Of each bucket, with sum 1.
        buckets: The bucket of every row.
        count: How many rows.
        rng: Draws them.
    """
    ends = np.rint(count * np.cumsum(shares)).astype(int)
    taken: list[np.ndarray] = []
    for bucket, wanted in enumerate(np.diff(ends, prepend=0)):
        if wanted:
            members = np.flatnonzero(buckets == bucket)
            rounds = -(-wanted // len(members))
            order = [rng.permutation(members) for _ in range(rounds)]
            taken.append(np.concatenate(order)[:wanted])
    return rng.permutation(np.concatenate(taken))


def equal_tokens(of: MakeRecipe, name: str, base: str, setting: Setting) -> Recipe:
    """The arm, in as many steps as make the baseline's supervised tokens.

    How many tokens it has in a step is read from its run at equal steps.
    """
    own, other = setting.earlier(name), setting.earlier(base)
    steps = math.floor(tokens(other) / (tokens(own) / own["steps"]))
    recipe = of(setting)
    return dataclasses.replace(
        recipe, spec=dataclasses.replace(recipe.spec, num_steps=max(1, steps))
    )


def tokens(result: Mapping[str, Any]) -> float:
    """Returns how many supervised tokens a run trained on."""
    return result["diagnostics"]["length"] * result["examples"]
