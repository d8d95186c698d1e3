"""Worlds for the crash tests: every sampler and every policy, each with all it needs.

A world is a session and a trainer whose losses, weights and features are functions of
example ids and step numbers, so that whatever interrupts it, its stream of batches can
only be one.

Shapes: ``n`` examples.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from curator.config import SessionSpec, parse_session
from curator.policies import POLICIES
from curator.samplers import SAMPLERS
from curator.types import PairEmbeddings

__all__ = [
    "WORLDS",
    "World",
    "write_pool",
    "write_world",
]

NUM_EXAMPLES = 192
NUM_STEPS = 48
BATCH, SUPER_BATCH = 8, 24
_ROOT = Path(__file__).parents[1]

# What each model's weights are called, and their shapes; see crash_models.
WEIGHTS: dict[str, dict[str, tuple[int, ...]]] = {
    "classifier": {"layer.weight": (16, 16), "layer.bias": (16,)},
    "two_tower": {
        "left.weight": (16, 16),
        "left.bias": (16,),
        "right.weight": (16, 16),
        "right.bias": (16,),
        "scale": (1,),
    },
    "causal_lm": {
        "embed.weight": (32, 16),
        "lm_head.weight": (32, 16),
        "lm_head.bias": (32,),
    },
}
_MODELS: dict[str, dict[str, object]] = {
    "classifier": {
        "factory": "benchmarks.crash_models:classifier",
        "columns": ["x"],
        "label": "label",
    },
    "two_tower": {
        "factory": "benchmarks.crash_models:two_tower",
        "columns": ["x", "y"],
    },
    "causal_lm": {
        "factory": "benchmarks.crash_models:language_model",
        "columns": ["tokens"],
        "tokens": "tokens",
    },
}


@dataclasses.dataclass(frozen=True)
class World:
    """A session, and who computes what its policy reads.

    Attributes:
        name: Of the world.
        session: The session's table.
        learner: The kind of model that the server scores with; None for none.
        reference: A kind of model, or ``table``; None for none.
    """

    name: str
    session: Mapping[str, object]
    learner: str | None = None
    reference: str | None = None

    @property
    def is_heavy(self) -> bool:
        """Whether its server takes long to start: it imports torch."""
        return self.learner in WEIGHTS or self.reference in WEIGHTS

    @property
    def spec(self) -> SessionSpec:
        """The session."""
        return parse_session(self.session)

    def with_session(self, **keys: object) -> World:
        """Returns this world with some keys of its session changed."""
        return dataclasses.replace(self, session={**self.session, **keys})

    def weights(self, step: int) -> dict[str, np.ndarray]:
        """Returns the learner's weights after so many steps."""
        rng = np.random.default_rng(step)
        return {
            name: (0.3 * rng.standard_normal(shape)).astype(np.float32)
            for name, shape in WEIGHTS[str(self.learner)].items()
        }

    def losses(
        self, ids: Int64[np.ndarray, " n"], step: int
    ) -> Float32[np.ndarray, " n"]:
        """Returns losses that fall, some of them faster."""
        # No two are equal: losses that are look like a mean.
        losses = (ids * 7919 % 193 / 40 + 0.1) / (1 + step * (1 + ids % 3) / 40)
        return losses.astype(np.float32)

    def features(
        self, ids: Int64[np.ndarray, " n"], step: int
    ) -> PairEmbeddings | dict[str, np.ndarray]:
        """Returns what a trainer's learner says of candidates."""
        needs = {need.removeprefix("learner.") for need in self.spec.policy.needs}
        if "embeddings" in needs:
            left, right = (_vectors(seed)[ids] for seed in (0, 1))
            drift = np.float32(step / NUM_STEPS)
            return PairEmbeddings(left, left + drift * right, 10.0, -5.0)
        losses = self.losses(ids, step)
        every = {
            "loss": losses,
            "grad_norm": np.sqrt(losses),
            "nuclear_norm": losses * 2,
            "projection": losses[:, None] * _vectors(2)[ids][:, :4],
        }
        return {name: value for name, value in every.items() if name in needs}


def _vectors(seed: int) -> Float32[np.ndarray, "n 16"]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((NUM_EXAMPLES, 16)).astype(np.float32)


# --- the worlds ----------------------------------------------------------------------

# What a policy or a sampler cannot do without; all else is its default.
_POLICY_FIELDS: dict[str, dict[str, object]] = {
    "domain_quota": {"score": "loss"},
    "importance": {"backward_ratio": 2.0},
    "joint": {"num_chunks": 2},
    "power": {"score": "loss"},
}
_SAMPLER_FIELDS: dict[str, dict[str, object]] = {"rs2": {"ratio": 0.5}}
# These take no score below 0, and a reference's alone is.
_NON_NEGATIVE = frozenset({"importance", "power"})
_LEARNERS = {"joint": "two_tower", "uds": "causal_lm"}
# These go by embeddings.
_COVERAGE = frozenset(
    {"dedup", "density", "facility_location", "kcenter", "logdet", "sensitivity"}
)
# These read losses, and have no score to choose.
_OF_LOSSES = frozenset({"ccs", "color"})


def _session(**keys: object) -> dict[str, object]:
    # Steps depend on reports where they can, which is where a crash could do harm.
    return {
        "pool": "pool",
        "batch_size": BATCH,
        "seed": 3,
        "num_steps": NUM_STEPS,
        "num_epochs": 8,
        **keys,
    }


def _policy(name: str, **fields: object) -> dict[str, object]:
    return {"name": name, **_POLICY_FIELDS.get(name, {}), **fields}


def _worlds() -> Iterator[World]:
    by: dict[str, object] = {"batch_size": 2 * BATCH}  # so that there are more epochs
    for name in SAMPLERS:
        sampler = {"name": name, **_SAMPLER_FIELDS.get(name, {})}
        yield World(f"sampler {name}", _session(sampler=sampler, **by))
    yield World(
        "sampler rs2, stratified",
        _session(sampler={"name": "rs2", "ratio": 0.5, "stratify_by": "domain"}, **by),
    )
    by = {"super_batch_size": SUPER_BATCH}
    for name in POLICIES:
        if name in _COVERAGE:
            yield from _coverage_worlds(name)
            continue
        # Of ids and columns alone, or of a reference's losses in a table.
        if name not in {*_NON_NEGATIVE, *_OF_LOSSES, "uds", "uniform"}:
            policy = _policy(name, score="easy_reference")
            table = _session(policy=policy, reference="table", **by)
            yield World(f"{name}, table", table, reference="table")
        if name == "uniform":
            yield World(name, _session(**by))
            continue
        policy = _policy(name)
        fields = {
            field.name for field in dataclasses.fields(cast("Any", POLICIES[name]))
        }
        if name == "joint":
            policy["score"] = "hard_learner"
        elif "score" in fields and name != "importance":
            policy["score"] = "loss"
        other = {"reference": "table"} if name == "color" else {}
        trainer = _session(policy=policy, features="trainer", **other, **by)
        yield World(f"{name}, trainer", trainer, **other)
        if name == "joint" or ("score" in fields and name not in _NON_NEGATIVE):
            policy = {**policy, "score": "learnability"}
        learner = _LEARNERS.get(name, "classifier")
        models = {"learner": learner, "reference": "table"}
        server = _session(policy=policy, max_ahead=1, publish_every=2, **models, **by)
        yield World(f"{name}, server", server, learner=learner, reference="table")
    sampler = {"name": "infobatch"}
    policy = _policy("topk", score="learnability")
    models = {"learner": "classifier", "reference": "fixed_classifier"}
    both = _session(sampler=sampler, policy=policy, **models, **by)
    yield World("topk, two models", both, learner="classifier", reference="classifier")


def _coverage_worlds(name: str) -> Iterator[World]:
    """Yields the worlds of a policy that reads the learner's embeddings."""
    policy: dict[str, object] = {"name": name, "embeddings": "learner.embeddings"}
    if name == "sensitivity":
        policy["loss"] = "reference.loss"
    session = _session(policy=policy, super_batch_size=SUPER_BATCH, reference="table")
    trainer = {**session, "features": "trainer"}
    yield World(f"{name}, trainer", trainer, reference="table")
    server = {**session, "learner": "two_tower", "max_ahead": 1, "publish_every": 2}
    yield World(f"{name}, server", server, learner="two_tower", reference="table")


WORLDS: dict[str, World] = {world.name: world for world in _worlds()}
"""Every sampler; every policy with all who may compute what it reads."""


# --- their files ---------------------------------------------------------------------


def write_pool(folder: Path) -> None:
    """Writes the pool and the reference's table, which all worlds share."""
    import pyarrow.parquet as pq

    ids = np.arange(NUM_EXAMPLES)
    x, y = _vectors(0), _vectors(1)
    domains = np.array(["books", "code", "web"])[ids * 7 % 11 % 3]
    tokens = np.random.default_rng(2).integers(0, 32, (NUM_EXAMPLES, 8))
    pool = {
        "x": pa.FixedShapeTensorArray.from_numpy_ndarray(x),
        "y": pa.FixedShapeTensorArray.from_numpy_ndarray(y),
        "label": ids % 16,
        "tokens": pa.FixedShapeTensorArray.from_numpy_ndarray(tokens),
        "domain": domains.tolist(),
    }
    table = pa.table(pool)
    with (
        pa.OSFile(str(folder / "pool.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    floats = pa.list_(pa.float32(), 16)
    outputs = {
        "example_id": ids,
        "loss": (ids * 31 % 97 / 40).astype(np.float32),
        "queries": pa.array(list(x), floats),
        "targets": pa.array(list(x + y), floats),
        "logit_scale": np.full(NUM_EXAMPLES, 10, np.float32),
        "logit_bias": np.full(NUM_EXAMPLES, -5, np.float32),
    }
    pq.write_table(pa.table(outputs), folder / "table.parquet")


def write_world(world: World, data: Path, folder: Path) -> Path:
    """Writes the configuration of a server for a world; returns its path.

    Args:
        world: The world; its session is called ``s``.
        data: Where :func:`write_pool` has written.
        folder: The server's own, with its state in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = {"kind": "table", "path": data / "table.parquet"}
    models: dict[str, Mapping[str, object]] = {"table": table}
    if world.is_heavy:
        for kind, model in _MODELS.items():
            models[kind] = {"kind": kind, **model}
        models["fixed_classifier"] = {
            "kind": "classifier",
            **_MODELS["classifier"],
            "args": {"seed": 7},
        }
    tables = {
        "server": {
            "listen": "127.0.0.1:0",
            "state_dir": "state",
            "python_path": [_ROOT],
        },
        "pools.pool": {"format": "arrow", "path": data / "pool.arrow"},
        **{f"models.{name}": model for name, model in models.items()},
        "sessions.s": world.session,
    }
    path = folder / "server.toml"
    lines: list[str] = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        table = cast("Mapping[str, object]", value)
        items = [f"{key} = {_toml(part)}" for key, part in table.items()]
        return f"{{ {', '.join(items)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, cast('list[object]', value)))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
