"""Scoring a whole pool once, and selecting from the scores.

What is wanted of a model that never changes need not be computed while training: see
``docs/scoring.md``, and ``docs/select.md`` for subsets.
"""

from curator.offline._batches import BatchPlanJob, BatchPlanReport, plan_batches
from curator.offline._difference import CategoryDifference, NumberDifference
from curator.offline._job import (
    DEFAULT_SHARD_SIZE,
    Progress,
    ScoreEstimate,
    ScoreJob,
    ScoreReport,
)
from curator.offline._losses import Losses, read_losses
from curator.offline._negatives import Negatives
from curator.offline._plan import PlanJob, PlanReport, plan
from curator.offline._plan_file import PLAN_KEY
from curator.offline._plan_inputs import plan_run
from curator.offline._pools import open_configured_pool
from curator.offline._score import estimate, score
from curator.offline._scores import Scores
from curator.offline._select import select
from curator.offline._select_job import SelectJob, SelectReport
from curator.offline._subset import Subset, read_subset
from curator.offline._where import Where

__all__ = [
    "DEFAULT_SHARD_SIZE",
    "PLAN_KEY",
    "BatchPlanJob",
    "BatchPlanReport",
    "CategoryDifference",
    "Losses",
    "Negatives",
    "NumberDifference",
    "PlanJob",
    "PlanReport",
    "Progress",
    "ScoreEstimate",
    "ScoreJob",
    "ScoreReport",
    "Scores",
    "SelectJob",
    "SelectReport",
    "Subset",
    "Where",
    "estimate",
    "open_configured_pool",
    "plan",
    "plan_batches",
    "plan_run",
    "read_losses",
    "read_subset",
    "score",
    "select",
]
