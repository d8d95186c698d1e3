"""The engine: sampler, scorers and policy at work, one ledger per session."""

from curator.engine._executor import Executor, ScoringRequest, ScoringResult
from curator.engine._executors import Executors
from curator.engine._registry import Registry
from curator.engine._session import SessionEngine

__all__ = [
    "Executor",
    "Executors",
    "Registry",
    "ScoringRequest",
    "ScoringResult",
    "SessionEngine",
]
