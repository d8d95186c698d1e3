"""The run that a sampler plans for: from a pool, from losses, or as it is given."""

from __future__ import annotations

import numpy as np

from curator.config import did_you_mean
from curator.engine import column_values
from curator.errors import ConfigError
from curator.offline._losses import Losses
from curator.pools import Pool
from curator.samplers import Run, Sampler

__all__ = ["plan_run"]

_MAX_EXAMPLES = 1 << 48  # of a permutation


def plan_run(
    sampler: Sampler,
    *,
    pool: tuple[str, Pool] | None,
    losses: Losses | None,
    num_examples: int | None,
    super_batch_size: int,
    seed: int,
    num_epochs: int | None,
) -> Run:
    """Returns the run that a sampler plans for.

    Args:
        sampler: The sampler.
        pool: A pool and its name; it has the columns that the sampler reads.
        losses: They know the size of the pool where nothing else does.
        num_examples: The size of the pool, where none is given.
        super_batch_size: Candidates of a step.
        seed: Of everything random.
        num_epochs: How long the run is.

    Raises:
        ConfigError: The size is not known, or a column; or the losses are of another
            pool.
        PoolError: The pool cannot be read.
    """
    columns: dict[str, np.ndarray] = {}
    if pool is not None:
        name, rows = pool
        num_examples = rows.num_examples
        _check_losses(name, rows, losses)
        columns = _columns(sampler, name, rows)
    elif sampler.columns:
        named = ", ".join(sorted(sampler.columns))
        msg = f"pool: {sampler!r} reads {named} of it; give a configuration and a pool"
        raise ConfigError(msg)
    if num_examples is None:
        if losses is None:
            msg = (
                "num_examples: how many the pool has is not known; give it, or the "
                "pool, or losses"
            )
            raise ConfigError(msg)
        num_examples = losses.num_examples
    if losses is not None and losses.num_examples > num_examples:
        msg = (
            f"losses: of example {losses.num_examples - 1}, and the pool has "
            f"{num_examples}: they are of another pool"
        )
        raise ConfigError(msg)
    if num_examples > _MAX_EXAMPLES:
        msg = f"num_examples: at most {_MAX_EXAMPLES}; got {num_examples}"
        raise ConfigError(msg)
    if not -(2**63) <= seed < 2**63:
        msg = f"seed: a 64-bit integer; got {seed}"
        raise ConfigError(msg)
    return Run(
        num_examples=num_examples,
        super_batch_size=super_batch_size,
        seed=seed,
        num_epochs=num_epochs,
        columns=columns,
    )


def _check_losses(name: str, pool: Pool, losses: Losses | None) -> None:
    if losses is None or losses.pool_fingerprint in (None, pool.fingerprint):
        return
    msg = (
        f"losses: of a pool with the fingerprint {losses.pool_fingerprint[:16]}, and "
        f"pool {name!r} has {pool.fingerprint[:16]}: their ids would mean other "
        "examples"
    )
    raise ConfigError(msg)


def _columns(sampler: Sampler, name: str, pool: Pool) -> dict[str, np.ndarray]:
    names = sorted(sampler.columns)
    for column in names:
        if column not in pool.schema.names:
            hint = did_you_mean(column, pool.schema.names)
            msg = f"sampler: pool {name!r} has no {column!r}{hint}"
            raise ConfigError(msg)
    if not names:
        return {}
    rows = pool.take(np.arange(pool.num_examples), names)
    return {
        column: column_values(column, rows.column(column), nulls=False)
        for column in names
    }
