"""The ledger: the durable record of every batch ever defined."""

from curator.ledger._fork import fork_ledger
from curator.ledger._inspect import (
    Appearance,
    appearances,
    copy_ledger,
    is_skipped,
    losses,
    ranks,
    step_tables,
)
from curator.ledger._records import Report, SnapshotRecord, StepRecord
from curator.ledger._sqlite import Ledger

__all__ = [
    "Appearance",
    "Ledger",
    "Report",
    "SnapshotRecord",
    "StepRecord",
    "appearances",
    "copy_ledger",
    "fork_ledger",
    "is_skipped",
    "losses",
    "ranks",
    "step_tables",
]
