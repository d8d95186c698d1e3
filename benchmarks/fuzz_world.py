"""What is fuzzed: a server's sessions, and what a fuzzer has to know of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

import curator
from curator.config import Config, parse_config

__all__ = [
    "FUZZED",
    "HEALTHY",
    "OPENED",
    "WORLD_SIZES",
    "World",
    "look_around",
    "tables",
    "to_toml",
    "write_pool",
]

NUM_EXAMPLES = 400
BATCH_SIZE, SUPER_BATCH_SIZE = 8, 24
# Steps that are defined before the first input comes.
NUM_STEPS = 32
WORLD_SIZES = (1, 2, 4, 8)
HEALTHY = "healthy"
_TRAINER = {
    "batch_size": BATCH_SIZE,
    "super_batch_size": SUPER_BATCH_SIZE,
    "features": "trainer",
    "seed": 3,
}
_SESSIONS: dict[str, dict[str, Any]] = {
    "uniform": {"batch_size": BATCH_SIZE, "seed": 3},
    "infobatch": {
        "batch_size": BATCH_SIZE,
        "sampler": {"name": "infobatch", "percentiles": []},
        "num_epochs": 3,
    },
    "topk": {**_TRAINER, "policy": {"name": "topk"}},
    "joint": {
        **_TRAINER,
        "policy": {"name": "joint", "num_chunks": 4, "loss": "softmax"},
    },
    "uds": {**_TRAINER, "policy": {"name": "uds"}},
    "learner": {
        "batch_size": BATCH_SIZE,
        "super_batch_size": SUPER_BATCH_SIZE,
        "policy": {
            "name": "joint",
            "num_chunks": 4,
            "score": "hard_learner",
            "loss": "softmax",
        },
        "learner": "towers",
    },
    HEALTHY: {"batch_size": BATCH_SIZE, "seed": 7},
}
# What is sent to; the healthy client has its session to itself.
FUZZED = tuple(name for name in _SESSIONS if name != HEALTHY)
# The only names under which the fuzzer opens sessions of its own.
OPENED = ("fuzz-a", "fuzz-b", "fuzz-c")


@dataclasses.dataclass
class World:
    """What makes an input valid: ids, features' rows, weights.

    Attributes:
        batches: Ids of the first steps of each session that has some, int64
            [steps, batch].
        candidates: Ids of the super-batches of the sessions that select, int64
            [steps, super-batch].
        weights: A safetensors file that fits the learner.
        next_select: The step that each session selects next.
    """

    batches: dict[str, np.ndarray]
    candidates: np.ndarray
    weights: bytes
    next_select: dict[str, int]


def write_pool(path: Path) -> None:
    """Writes a small pool of pairs as an Arrow file."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((NUM_EXAMPLES, 4)).astype(np.float32)
    table = pa.table(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(image),
            "text": pa.FixedShapeTensorArray.from_numpy_ndarray(-image),
            "number": np.arange(NUM_EXAMPLES),
            "caption": [f"pair {i}" for i in range(NUM_EXAMPLES)],
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as f:
        f.write_table(table)


def tables(folder: Path) -> dict[str, Any]:
    """Returns the configuration's tables; the pool lies in ``folder``."""
    return {
        "server": {
            "listen": "127.0.0.1:0",
            "state_dir": str(folder / "state"),
            "python_path": [str(Path(__file__).parents[1])],
            "max_snapshot_bytes": 1 << 20,
            "max_message_bytes": 4 << 20,
        },
        "pools": {"pairs": {"format": "arrow", "path": str(folder / "pairs.arrow")}},
        "models": {
            "towers": {
                "factory": "benchmarks.fuzz_model:build",
                "columns": ["image", "text"],
            }
        },
        "sessions": {
            name: {"pool": "pairs", **table} for name, table in _SESSIONS.items()
        },
    }


def to_toml(table: dict[str, Any], prefix: str = "") -> str:
    """Returns tables of plain values as TOML."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    lines = [f"[{prefix}]"] if prefix and plain else []
    lines += [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(
                to_toml(
                    cast("dict[str, Any]", value), f"{prefix}.{key}" if prefix else key
                )
            )
    return "\n".join(lines)


def _toml_value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, cast('list[object]', value)))}]"
    if isinstance(value, str):
        return f"'{value}'"
    return str(value)


def configuration(folder: Path) -> Config:
    """Returns the configuration, its state in ``folder``."""
    return parse_config(tables(folder))


def look_around(service: curator.Service) -> World:
    """Opens every session, and returns what can be known of them."""
    from benchmarks.fuzz_model import build
    from curator.models import weights_to_bytes

    batches: dict[str, np.ndarray] = {}
    model = build()
    for name in FUZZED:
        session = service.open(name)
        if session.info.spec.features == "trainer":
            continue
        ids: list[np.ndarray] = []
        if name == "learner":
            session.publish(model)
        for batch in session.batches():
            ids.append(batch.ids)
            if len(ids) == (1 if name == "learner" else NUM_STEPS):
                break
        session.close()
        batches[name] = np.stack(ids)
    session = service.open("topk")
    candidates = [
        batch.ids
        for batch, _ in zip(
            session.super_batches(columns=[]), range(40 * NUM_STEPS), strict=False
        )
    ]
    session.close()
    return World(
        batches=batches,
        candidates=np.stack(candidates),
        weights=weights_to_bytes(model),
        next_select=dict.fromkeys(("topk", "joint", "uds"), 0),
    )
