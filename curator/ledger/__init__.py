"""The ledger: the durable record of every batch ever defined."""

from curator.ledger._records import Report, SnapshotRecord, StepRecord
from curator.ledger._sqlite import Ledger

__all__ = ["Ledger", "Report", "SnapshotRecord", "StepRecord"]
