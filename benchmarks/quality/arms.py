"""The arms: a name, a line for a reader, and a recipe.

To add one, write a function from a :class:`Setting` to a :class:`Recipe` (here they are
in ``recipes.py``), a line in ``ARMS``, and its name in ``plan.py``. What it is compared
with, and on which axis, is in ``claims.py``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from benchmarks.quality.lm_recipes import (
    equal_tokens,
    lengths_of,
    scored_random,
    uds,
)
from benchmarks.quality.recipes import (
    Recipe,
    Setting,
    charged,
    counted,
    epochs,
    importance,
    joint,
    like,
    placebo,
    random_equal,
    resourced,
    rho_cheap,
    rs2,
    selective_backprop,
    service_random,
    short,
    static,
    top_k,
)
from curator.samplers import InfoBatch, RePB, SeTa

__all__ = ["ARMS", "Arm"]


@dataclasses.dataclass(frozen=True, slots=True)
class Arm:
    """One way to choose batches.

    Attributes:
        what: One line for a reader.
        recipe: Makes the recipe.
        after: Arms whose results it needs.
    """

    what: str
    recipe: Callable[[Setting], Recipe]
    after: tuple[str, ...] = ()


def _three(name: str, what: str, recipe: Callable[[Setting], Recipe]) -> dict[str, Arm]:
    """Returns an arm at equal steps, at equal device-seconds, and counted."""
    return {
        name: Arm(f"{what}; scoring is free", recipe),
        f"{name}_charged": Arm(
            f"{what}; scoring is paid for with steps, in device-seconds",
            functools.partial(charged, recipe, name, "uniform"),
            ("uniform", name),
        ),
        f"{name}_counted": Arm(
            f"{what}; scoring is paid for with steps, in forward passes",
            functools.partial(counted, recipe, "uniform"),
            ("uniform",),
        ),
    }


def _language(
    name: str, what: str, recipe: Callable[[Setting], Recipe]
) -> dict[str, Arm]:
    """Returns an arm at equal steps, at equal tokens, and at equal device-seconds."""
    return {
        name: Arm(f"{what}; equal steps, scoring is free", recipe),
        f"{name}_tokens": Arm(
            f"{what}; as many supervised tokens as the uniform arm, scoring is free",
            functools.partial(equal_tokens, recipe, name, "uniform"),
            ("uniform", name),
        ),
        f"{name}_charged": Arm(
            f"{what}; scoring is paid for with steps, in device-seconds",
            functools.partial(charged, recipe, name, "uniform"),
            ("uniform", name),
        ),
    }


_rho = functools.partial(top_k, "learnability")
_lengths = functools.partial(lengths_of, "uds")

ARMS: dict[str, Arm] = {
    "full": Arm("every example, every epoch", epochs),
    "infobatch": Arm("InfoBatch", functools.partial(epochs, sampler=InfoBatch())),
    "infobatch_no_rescale": Arm(
        "InfoBatch, weights ignored",
        functools.partial(epochs, sampler=InfoBatch(), use_weights=False),
    ),
    "repb": Arm("RePB", functools.partial(epochs, sampler=RePB())),
    "seta": Arm("SeTa", functools.partial(epochs, sampler=SeTa())),
    "random_equal": Arm(
        "a random part of the pool each epoch, as large as InfoBatch's",
        random_equal,
        ("full", "infobatch"),
    ),
    "uniform_equal": Arm(
        "whole epochs, fewer of them: InfoBatch's steps",
        functools.partial(like, "infobatch"),
        ("infobatch",),
    ),
    "rs2": Arm("RS2: another tenth each round", rs2),
    "static_random": Arm(
        "one random tenth, every round", functools.partial(static, "random")
    ),
    "static_k_center": Arm(
        "one tenth by k-center, every round", functools.partial(static, "k_center")
    ),
    "static_el2n": Arm(
        "the tenth with the highest EL2N, every round",
        functools.partial(static, "el2n"),
    ),
    "uniform": Arm("uniform batches, the short budget", short),
    **_three("rho", "RHO-LOSS, the trainer's own model scores", _rho),
    **_three("rho_cheap", "RHO-LOSS, a far smaller model scores", rho_cheap),
    **_three("selective_backprop", "Selective Backprop", selective_backprop),
    **_three("importance", "importance sampling by gradient norm", importance),
    **_three("joint", "JEST: joint selection", joint),
    **_three(
        "easy_reference",
        "what the reference finds easy, the learner is not asked",
        functools.partial(top_k, "easy_reference"),
    ),
    **_language(
        "max_loss", "the highest losses", functools.partial(top_k, "hard_learner")
    ),
    **_language("uds", "UDS, as published", uds),
    **_language(
        "uds_greedy", "UDS, one after the other", functools.partial(uds, mode="greedy")
    ),
    **_language(
        "uds_normalised",
        "UDS, divided by lengths",
        # alpha over the root of a typical length here: see docs/policies/uds.md.
        functools.partial(uds, length_normalised=True, alpha=6.6 / 5),
    ),
    **_language(
        "uds_no_diversity",
        "UDS, nuclear norm alone",
        functools.partial(uds, alpha=0.0),
    ),
    "uds_lengths": Arm(
        "uniform batches of as long examples as UDS picked; equal steps and tokens",
        _lengths,
        ("uds",),
    ),
    "uds_lengths_tokens": Arm(
        "uniform batches of as long examples as UDS picked; as many supervised tokens "
        "as the uniform arm",
        functools.partial(equal_tokens, _lengths, "uds_lengths", "uniform"),
        ("uds", "uniform", "uds_lengths"),
    ),
    "uniform_uds_tokens": Arm(
        "uniform batches, as many supervised tokens as UDS picked",
        functools.partial(equal_tokens, short, "uniform", "uds"),
        ("uniform", "uds"),
    ),
    "scored_random": Arm(
        "candidates are scored by their loss, and drawn from uniformly", scored_random
    ),
    "placebo": Arm(
        "RHO-LOSS with its scores given to the wrong candidates",
        functools.partial(placebo, _rho),
    ),
    "joint_placebo": Arm(
        "JEST with its scores given to the wrong candidates",
        functools.partial(placebo, joint),
    ),
    "service_random": Arm(
        "candidates are scored, and drawn from uniformly", service_random
    ),
    "uniform_rho_cost": Arm(
        "uniform batches, as many as RHO-LOSS's device-seconds buy",
        functools.partial(resourced, "rho", "uniform"),
        ("uniform", "rho"),
    ),
    "uniform_joint_cost": Arm(
        "uniform batches, as many as JEST's device-seconds buy",
        functools.partial(resourced, "joint", "uniform"),
        ("uniform", "joint"),
    ),
}
