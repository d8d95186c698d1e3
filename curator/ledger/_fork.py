"""A ledger that is another one up to a step."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from curator.errors import StorageError
from curator.ledger._rows import int_of, report_from_row
from curator.ledger._sqlite import Ledger

__all__ = ["fork_ledger"]

# Facts of the source that are not the copy's.
_OWN = ("next_step", "awaits_snapshot", "forked_from", "forked_at", "forgot_memory")

_COPY = """
INSERT INTO steps SELECT * FROM source.steps WHERE step < :step;
INSERT INTO reports SELECT * FROM source.reports WHERE step < :step;
INSERT INTO memory SELECT * FROM source.memory WHERE step < :step;
INSERT INTO snapshots SELECT * FROM source.snapshots WHERE report_step < :step;
INSERT INTO skips
    SELECT start, min(stop, :step) FROM source.skips WHERE start < :step;
INSERT INTO meta SELECT * FROM source.meta;
"""


def fork_ledger(
    source: Path, target: Path, step: int, facts: Mapping[str, str]
) -> None:
    """Writes the ledger of a session that has trained on the steps before one.

    As of one moment, also while a server writes to the source.

    Args:
        source: The ledger; only read.
        target: Where there is no file yet.
        step: The first step that is not copied; all before it are closed.
        facts: What is added to ``meta``.

    Raises:
        StorageError: One cannot be read, or the other not written.
    """
    Ledger(target).close()
    try:
        with contextlib.closing(
            sqlite3.connect(
                f"{target.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None
            )
        ) as db:
            uri = f"{source.absolute().as_uri()}?mode=ro"
            db.execute("ATTACH ? AS source", (uri,))
            db.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, _COPY.split(";")):
                db.execute(statement, {"step": step} if ":step" in statement else {})
            db.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in _OWN])
            db.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                {**facts, "next_step": str(step)}.items(),
            )
            later = _totals_since(db, step, source)
            totals = db.execute("SELECT name, value FROM source.totals").fetchall()
            db.executemany(
                "INSERT INTO totals VALUES (?, ?)",
                [(name, value - later[str(name)]) for name, value in totals],
            )
            db.execute("COMMIT")
    except sqlite3.Error as error:
        msg = f"cannot copy the ledger {str(source)!r}: {error}"
        raise StorageError(msg) from error


def _totals_since(db: sqlite3.Connection, step: int, path: Path) -> Mapping[str, float]:
    """Returns what steps from one on have added to the totals of ``source``.

    Taken off the totals, that leaves what steps have added that are not kept any more.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    steps = db.execute("SELECT stats, late FROM source.steps WHERE step >= ?", (step,))
    for stats, late in steps:
        for name, value in {**json.loads(stats), "num_late": late}.items():
            totals[name] += value
    reports = db.execute("SELECT * FROM source.reports WHERE step >= ?", (step,))
    for row in reports:
        losses = report_from_row(row, path).losses
        if losses is not None:
            totals["num_quarantined_losses"] += int(np.isnan(losses).sum())
    skips = db.execute("SELECT start, stop FROM source.skips WHERE stop > ?", (step,))
    for start, stop in skips:
        totals["num_skipped"] += int_of(stop) - max(step, int_of(start))
    return totals
