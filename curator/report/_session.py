"""The report on a session: what it chose, of what, how often, and at what cost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from curator.config import (
    Config,
    did_you_mean,
    parse_session,
)
from curator.errors import (
    ConfigError,
    PoolChangedError,
    SessionError,
    UnknownSessionError,
)
from curator.ledger import Ledger
from curator.offline import open_configured_pool
from curator.pools import Pool
from curator.report._columns import Choice, Columns, choose_columns
from curator.report._content import (
    Report,
)
from curator.report._examples import Examples
from curator.report._groups import Groups
from curator.report._options import Options
from curator.report._session_page import SessionPage
from curator.report._timeline import read_timeline

__all__ = ["report_session"]

_BLOCK = 65_536


def report_session(
    state: Path,
    name: str,
    config: Config | None,
    options: Options,
    *,
    pool_name: str | None = None,
) -> Report:
    """Returns the report on a session; a server may run meanwhile.

    Args:
        state: The server's state directory.
        name: Of the session.
        config: Of the server, which has the pool; None where it is not at hand.
        options: How much is shown.
        pool_name: The pool's name in the configuration, where it is another one now.

    Raises:
        UnknownSessionError: There is no such session.
        SessionError: It has closed no step.
        ConfigError: There is no such pool, or a column cannot be shown as was said.
        PoolError: The pool cannot be read, or is another one.
        StorageError: The ledger cannot be read.
    """
    found = {path.parent.name for path in state.glob("sessions/*/ledger.sqlite")}
    if name not in found:
        hint = did_you_mean(name, found)
        msg = f"no session {name!r} in the state directory {str(state)!r}{hint}"
        raise UnknownSessionError(msg)
    if config is None and options.choice != Choice():
        msg = (
            "--domain, --text and --image are columns of the pool: give the server's "
            "CONFIG.toml, which says where it is"
        )
        raise ConfigError(msg)
    with contextlib.ExitStack() as stack:
        ledger = Ledger(state / "sessions" / name / "ledger.sqlite", read_only=True)
        stack.callback(ledger.close)
        known = ledger.meta()
        if "spec" not in known or not _has_closed(ledger):
            msg = f"session {name!r} has not closed a step yet: nothing to report"
            raise SessionError(msg)
        spec = parse_session(json.loads(known["spec"]))
        pool = None
        if config is not None:
            pool = stack.enter_context(
                open_configured_pool(config, pool_name or spec.pool)
            )
            if pool.fingerprint != known["pool"]:
                if pool_name is not None and pool_name != spec.pool:
                    msg = (
                        f"pool: {pool_name!r} is not the pool of session {name!r}, "
                        f"which is {spec.pool!r}"
                    )
                    raise ConfigError(msg)
                msg = f"pool {spec.pool!r} has changed since the session was opened"
                raise PoolChangedError(msg)
        size = _size(known, pool, ledger)
        columns = Columns() if pool is None else choose_columns(pool, options.choice)
        groups, codes = _read_groups(
            pool, columns, size, is_asked_for=options.choice.group is not None
        )
        timeline = read_timeline(
            ledger,
            size,
            None if codes is None else lambda ids: codes[ids],
            0 if groups is None else len(groups),
        )
        page = SessionPage(name, spec, known, timeline, ledger.totals(), groups, codes)
        sections = [
            page.overview(),
            *page.scores(),
            page.choices(),
            *page.domains(),
            page.examples(Examples(pool, columns), options.num_examples),
            page.cost(),
            page.specification(),
        ]
    return Report(
        title=f"Session {name}",
        subtitle=page.sentence(),
        sections=sections,
        summary=page.summary(),
        lines=list(page.lines()),
    )


def _has_closed(ledger: Ledger) -> bool:
    return ledger.first_step() < min(ledger.next_step(), ledger.num_defined())


def _size(known: Mapping[str, str], pool: Pool | None, ledger: Ledger) -> int:
    """Returns how many examples the pool has, as far as that can be known."""
    if "num_examples" in known:
        return int(known["num_examples"])
    if pool is not None:
        return pool.num_examples
    # Of a version that did not record it: at least the highest id there is.
    steps = range(ledger.first_step(), ledger.num_defined(), 256)
    blocks = (ledger.steps(start, start + 256) for start in steps)
    return 1 + max(int(r.ids.max()) for records in blocks for r in records)


def _read_groups(
    pool: Pool | None, columns: Columns, size: int, *, is_asked_for: bool
) -> tuple[Groups | None, np.ndarray | None]:
    """Returns the pool's domains, and that of each example (2 bytes)."""
    if pool is None or columns.group is None:
        return None, None
    groups = Groups(pool, columns.group)
    blocks = [
        np.arange(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)
    ]
    is_few = all(groups.count(ids) for ids in blocks)
    if not groups.check_few(is_asked_for=is_asked_for, is_few=is_few):
        return None, None
    return groups, np.concatenate(
        [groups.codes(ids).astype(np.int16) for ids in blocks]
    )
