"""Samplers: which examples become candidates, and when; numpy only.

To add one: a file with a frozen dataclass that keeps the :class:`Sampler` protocol, a
line in :data:`SAMPLERS`, a page in ``docs/samplers``. The contract test picks it up.
"""

from __future__ import annotations

from typing import Any, TypeVar

from curator.components import register_component
from curator.samplers._base import (
    EpochPlan,
    EpochPlanner,
    ResumablePlanner,
    Run,
    Sampler,
)
from curator.samplers._batch_planners import (
    B3Batches,
    BatchPlanner,
    ClusterBatches,
)
from curator.samplers._batch_plans import (
    BatchPlan,
    PartitionerName,
    b3_plan,
    cluster_plan,
)
from curator.samplers._foreign import ForeignSampler
from curator.samplers._infobatch import InfoBatch
from curator.samplers._permutation import Permutation
from curator.samplers._repb import RePB
from curator.samplers._rs2 import RS2
from curator.samplers._seta import SeTa
from curator.samplers._uniform import Uniform

__all__ = [
    "BATCH_PLANNERS",
    "RS2",
    "SAMPLERS",
    "B3Batches",
    "BatchPlan",
    "BatchPlanner",
    "ClusterBatches",
    "EpochPlan",
    "EpochPlanner",
    "ForeignSampler",
    "InfoBatch",
    "PartitionerName",
    "Permutation",
    "RePB",
    "ResumablePlanner",
    "Run",
    "Sampler",
    "SeTa",
    "Uniform",
    "b3_plan",
    "cluster_plan",
    "register_sampler",
]

SAMPLERS: dict[str, type[Sampler]] = {
    InfoBatch.name: InfoBatch,
    RePB.name: RePB,
    RS2.name: RS2,
    SeTa.name: SeTa,
    Uniform.name: Uniform,
}
"""The samplers by the names they have in a configuration."""

BATCH_PLANNERS: dict[str, type[BatchPlanner]] = {
    B3Batches.name: B3Batches,
    ClusterBatches.name: ClusterBatches,
}
"""The ways to plan whole batches, by the names that ``curator plan`` has for them."""

_Class = TypeVar("_Class", bound=type[Any])


def register_sampler(cls: _Class) -> _Class:
    """Makes a sampler of one's own known by its ``name``; a class decorator.

    Raises:
        ConfigError: It is no frozen dataclass, lacks a method, or has no name, or that
            of another sampler.
    """
    return register_component("sampler", SAMPLERS, cls, ("columns", "start"))
