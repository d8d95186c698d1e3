"""Scoring a whole pool once, to files that a ``table`` model reads.

What is wanted of a model that never changes need not be computed while training: see
``docs/scoring.md``.
"""

from curator.offline._job import (
    DEFAULT_SHARD_SIZE,
    Progress,
    ScoreEstimate,
    ScoreJob,
    ScoreReport,
)
from curator.offline._score import estimate, score

__all__ = [
    "DEFAULT_SHARD_SIZE",
    "Progress",
    "ScoreEstimate",
    "ScoreJob",
    "ScoreReport",
    "estimate",
    "score",
]
