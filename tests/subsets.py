"""Scores as ``curator score`` writes them, of pools that nobody has to score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scorers import lists_of

from curator.offline import SelectJob
from curator.offline._manifest import Manifest, agree
from curator.offline._shards import shard_path, write_shard
from curator.pools import open_pool

NUM_EXAMPLES = 200
NAN_IDS = (5, 70)
DOMAINS = ("web", "books", "code")


def outputs_of(seed: int, num_examples: int = NUM_EXAMPLES) -> dict[str, np.ndarray]:
    """Returns what a model of every kind at once would say, not finite for two."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {
        name: rng.gamma(2.0, 1.0, num_examples).astype(np.float32)
        for name in ("entropy", "grad_norm", "loss", "nuclear_norm", "num_tokens")
    }
    columns["projection"] = rng.standard_normal((num_examples, 6), np.float32)
    for name in ("queries", "targets"):
        columns[name] = rng.standard_normal((num_examples, 8), np.float32)
    columns["logit_scale"] = np.full(num_examples, 10.0, np.float32)
    columns["logit_bias"] = np.full(num_examples, -10.0, np.float32)
    for name in ("loss", "queries", "projection"):
        columns[name][[i for i in NAN_IDS if i < num_examples]] = np.nan
    return columns


def write_scores(
    folder: Path,
    columns: Mapping[str, np.ndarray],
    *,
    shard_size: int = 64,
    pool: str = "pool",
    copied: Mapping[str, object] | None = None,
) -> Path:
    """Writes scores of ids 0 and up, with a pool's columns beside them if wanted."""
    beside = pa.table({} if copied is None else dict(copied))
    num_examples = len(next(iter(columns.values())))
    manifest = Manifest(
        pool_fingerprint=pool,
        model_fingerprint=f"model of {folder.name}",
        model={"kind": "classifier"},
        outputs=sorted(columns),
        columns=beside.schema.names,
        where=None,
        pool_num_examples=num_examples,
        num_examples=num_examples,
        shard_size=shard_size,
        versions={},
    )
    folder.mkdir(parents=True)
    agree(folder, manifest)
    table = pa.table(
        {
            "example_id": np.arange(num_examples),
            **{
                name: lists_of(values) if values.ndim == 2 else values
                for name, values in columns.items()
            },
            **{name: beside.column(name) for name in beside.schema.names},
        }
    )
    for shard in range(manifest.num_shards):
        start, stop = manifest.span(shard)
        (rows,) = table.slice(start, stop - start).combine_chunks().to_batches()
        write_shard(shard_path(folder, shard), rows, manifest, {})
    return folder


def pool_table(num_examples: int = NUM_EXAMPLES) -> pa.Table:
    rng = np.random.default_rng(9)
    return pa.table(
        {
            "domain": [DOMAINS[i] for i in rng.integers(0, 3, num_examples)],
            "label": rng.integers(0, 4, num_examples),
            "length": rng.gamma(2.0, 1.0, num_examples),
            "text": ["x" * int(n) + f" {i}" for i, n in enumerate(range(num_examples))],
            "tokens": [list(range(i % 7)) for i in range(num_examples)],
            "picture": [bytes(i % 5) for i in range(num_examples)],
            "vector": lists_of(rng.standard_normal((num_examples, 3), np.float32)),
            "maybe": [
                None if i % 10 == 0 else f"m{i % 3}" for i in range(num_examples)
            ],
        }
    )


def write_pool(folder: Path, num_examples: int = NUM_EXAMPLES) -> tuple[Path, str]:
    """Writes a pool and a configuration; returns the latter, and the fingerprint."""
    pq.write_table(pool_table(num_examples), folder / "pool.parquet", row_group_size=50)
    path = folder / "server.toml"
    path.write_text(
        """
        [server]
        state_dir = "state"

        [pools.p]
        format = "parquet"
        path = "pool.parquet"

        [pools.ids]
        format = "virtual"
        num_examples = 200
        """
    )
    pool = open_pool("parquet", folder / "pool.parquet")
    return path, pool.fingerprint


def job(out: Path, **changes: object) -> SelectJob:
    return SelectJob(out=out, **changes)  # pyright: ignore[reportArgumentType]
