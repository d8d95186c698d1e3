"""The engine: sampler, scorers and policy at work, one ledger per session."""

from curator.engine._checkpoint import (
    Manifest,
    SavedSession,
    checkpoint,
    restore,
)
from curator.engine._drafting import column_values, feature_values
from curator.engine._dropped import Dropped, dropped
from curator.engine._executor import Executor, ScoringRequest, ScoringResult
from curator.engine._executors import Executors
from curator.engine._registry import Registry
from curator.engine._scoring_worker import ScoringWorker
from curator.engine._session import SessionEngine

__all__ = [
    "Dropped",
    "Executor",
    "Executors",
    "Manifest",
    "Registry",
    "SavedSession",
    "ScoringRequest",
    "ScoringResult",
    "ScoringWorker",
    "SessionEngine",
    "checkpoint",
    "column_values",
    "dropped",
    "feature_values",
    "restore",
]
