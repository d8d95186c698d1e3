"""Whether a session fits what it names, and is what it was when it was opened."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from curator.config import (
    ModelSpec,
    SessionSpec,
    did_you_mean,
    parse_session,
    session_to_table,
)
from curator.engine._drafting import pool_columns
from curator.errors import (
    ConfigError,
    PoolChangedError,
    SessionMismatchError,
    StorageError,
)
from curator.ledger import Ledger
from curator.models import Scorer, ScoreTable, check_scores
from curator.pools import Pool

__all__ = [
    "check_configured",
    "check_identity",
    "check_pool",
    "check_recorded",
    "check_table",
    "has_ledger",
    "mismatch",
    "recorded_spec",
]


def recorded_spec(spec: str, folder: Path) -> SessionSpec:
    """Returns the specification that the ledger of a folder has.

    Raises:
        StorageError: It is damaged, or names what is not known here.
    """
    try:
        return parse_session(json.loads(spec))
    except (ValueError, ConfigError) as error:
        msg = f"the ledger in {str(folder)!r}: its specification: {error}"
        raise StorageError(msg) from error


def has_ledger(folder: Path) -> bool:
    """Whether a session was opened; on a full disk its ledger may have stayed empty."""
    path = folder / "ledger.sqlite"
    return path.exists() and path.stat().st_size > 0


def check_recorded(
    name: str, spec: SessionSpec, folder: Path, fingerprint: str
) -> None:
    """Checks that a ledger, which is only read, is of this specification and pool.

    Raises:
        SessionMismatchError: It is of another specification.
        PoolChangedError: The pool's data is not what it was.
        StorageError: It cannot be read.
    """
    with contextlib.closing(Ledger(folder / "ledger.sqlite", read_only=True)) as ledger:
        known = ledger.meta()
    if "spec" not in known:
        return
    recorded = recorded_spec(known["spec"], folder)
    if spec != recorded:
        raise mismatch(name, recorded, spec)
    check_identity(name, spec, known, {**known, "pool": fingerprint})


def mismatch(
    name: str, recorded: SessionSpec, given: SessionSpec
) -> SessionMismatchError:
    """Returns the error of another specification under an existing name."""
    old, new = session_to_table(recorded), session_to_table(given)
    changes = [
        f"{key}: was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    msg = (
        f"session {name!r} exists with another specification ({'; '.join(changes)}). A "
        "session is fixed when it is first opened: open the new one under a new name"
    )
    return SessionMismatchError(msg)


def check_configured(
    name: str, configured: SessionSpec | None, given: SessionSpec
) -> None:
    """Checks that a client opens no other session under a name of the configuration.

    Raises:
        SessionMismatchError: It does.
    """
    if configured is not None and given != configured:
        raise mismatch(name, configured, given)


def check_identity(
    name: str, spec: SessionSpec, known: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Checks that pool and models are what they were when the session was opened.

    Args:
        name: The session.
        spec: What it is.
        known: What its ledger says; empty for a new one.
        now: The fingerprints now.

    Raises:
        PoolChangedError: The pool's data is not what it was.
        SessionMismatchError: A model is not.
    """
    if "spec" not in known:
        return
    if known["pool"] != now["pool"]:
        msg = (
            f"pool {spec.pool!r} has changed since session {name!r} was opened "
            f"(fingerprint was {known['pool'][:16]}, now {now['pool'][:16]}): its ids "
            "would mean other examples. Restore the data, or open a new session"
        )
        raise PoolChangedError(msg)
    for role, model in (("learner", spec.learner), ("reference", spec.reference)):
        if known[role] != now[role]:
            msg = (
                f"{role} model {model!r} has changed since session {name!r} was opened "
                "(weights, factory, arguments, dtype or columns). Restore it, or open "
                "a new session"
            )
            raise SessionMismatchError(msg)


def check_table(
    spec: SessionSpec,
    models: Mapping[str, ModelSpec],
    pool: Pool,
    reference: Scorer | ScoreTable | None,
) -> None:
    """Checks that a table is of the session's pool, and of the model that it names.

    Raises:
        ConfigError: It is not, or it does not say what it is of and a model is named.
        StorageError: The model's weights cannot be read.
    """
    if not isinstance(reference, ScoreTable) or spec.reference is None:
        return
    table = models[spec.reference]
    if reference.manifest is not None:
        check_scores(
            reference.manifest,
            path=str(table.path),
            pool=(spec.pool, pool.fingerprint),
            model=None if table.model is None else (table.model, models[table.model]),
        )
    elif table.model is not None:
        msg = (
            f"reference: {table.path!r} does not say which model its scores are of, so "
            f"{table.model!r} cannot be checked: leave that out, or take a folder that "
            "'curator score' wrote"
        )
        raise ConfigError(msg)


def check_pool(
    spec: SessionSpec, pool: Pool, models: Mapping[str, ModelSpec], where: str
) -> None:
    """Checks that a pool has what a session, its sampler, policy and models read.

    Raises:
        ConfigError: It has too few examples, or lacks a column.
    """
    if spec.super_batch_size > pool.num_examples:
        msg = (
            f"{where}: super_batch_size: at most the {pool.num_examples} examples of "
            f"pool {spec.pool!r}; got {spec.super_batch_size}"
        )
        raise ConfigError(msg)
    columns: list[tuple[str, list[str]]] = [
        ("columns", spec.columns or []),
        ("sampler", sorted(spec.sampler.columns)),
        ("policy", pool_columns(spec.policy.needs)),
    ]
    if spec.features == "server" and spec.policy.needs:
        columns += [
            (f"models.{model}.{key}", names)
            for model in (spec.learner, spec.reference)
            if model is not None
            for key, names in models[model].reads.items()
        ]
    for key, names in columns:
        for column in names:
            if column not in pool.schema.names:
                hint = did_you_mean(column, pool.schema.names)
                msg = f"{where}: {key}: pool {spec.pool!r} has no {column!r}{hint}"
                raise ConfigError(msg)
