"""Shards and scores as bytes, between processes of ours.

Ray passes bytes on as they are. Everything else goes through a pickler that is written
in Python, again at each end, which takes longer than scoring a small shard does. So
values are taken apart here, down to what pickle's C code does without calling anybody.
"""

from __future__ import annotations

import dataclasses
import pickle  # noqa: TID251 - not for the wire
from typing import Any, TypeAlias

import numpy as np

from curator.engine._hosted_scorer import Shard, Snapshot
from curator.types import Feature, Features, PairEmbeddings

__all__ = [
    "PackedShard",
    "Scored",
    "pack_scored",
    "pack_snapshot",
    "unpack_scored",
    "unpack_shard",
    "unpack_snapshot",
]

Scored: TypeAlias = tuple[Features, float, dict[str, int]]
"""What :meth:`curator.engine._hosted_scorer.HostedScorer.score` returns."""

# Arrays of more bytes than this Ray itself passes on with fewer copies.
_MAX_BYTES = 1 << 20

_Array = tuple[bytes, str, tuple[int, ...]]
_Pair = tuple[_Array, _Array, float, float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class PackedShard:
    """A shard that is passed on as it is.

    Attributes:
        name: For messages.
        has_rows: Whether its rows are in it.
        data: The shard.
    """

    name: str
    has_rows: bool
    data: bytes

    @classmethod
    def of(cls, shard: Shard) -> PackedShard:
        """Returns a shard, packed."""
        parts = shard.name, shard.ids.tobytes(), sorted(shard.needs), shard.rows
        return cls(shard.name, shard.rows is not None, _pack(parts))


def unpack_shard(data: bytes) -> Shard:
    """Returns the shard of :attr:`PackedShard.data`."""
    name, ids, needs, rows = _unpack(data)
    return Shard(name, np.frombuffer(ids, np.int64), frozenset(needs), rows)


def pack_snapshot(snapshot: Snapshot) -> bytes:
    """Returns a snapshot as bytes."""
    return _pack((snapshot.path, snapshot.inode))


def unpack_snapshot(data: bytes | None) -> Snapshot | None:
    """Returns the snapshot of :func:`pack_snapshot`; None for None."""
    return None if data is None else Snapshot(*_unpack(data))


def pack_scored(scored: Scored) -> bytes | Scored:
    """Returns scores and their account as bytes; large ones as they are."""
    features, seconds, num_scored = scored
    if sum(_num_bytes(feature) for feature in features.values()) > _MAX_BYTES:
        return scored
    parts = {name: _feature_parts(value) for name, value in features.items()}
    return _pack((parts, seconds, num_scored))


def unpack_scored(data: bytes | Scored) -> Scored:
    """Returns what :func:`pack_scored` was given; arrays may be read-only."""
    if not isinstance(data, bytes):
        return data
    parts, seconds, num_scored = _unpack(data)
    return (
        {name: _feature(part) for name, part in parts.items()},
        seconds,
        num_scored,
    )


def _num_bytes(feature: Feature) -> int:
    if isinstance(feature, np.ndarray):
        return feature.nbytes
    return feature.queries.nbytes + feature.targets.nbytes


def _feature_parts(feature: Feature) -> _Array | _Pair:
    if isinstance(feature, np.ndarray):
        return _array_parts(feature)
    return (
        _array_parts(feature.queries),
        _array_parts(feature.targets),
        feature.logit_scale,
        feature.logit_bias,
    )


def _feature(parts: Any) -> Feature:
    if isinstance(parts[0], bytes):
        return _array(*parts)
    queries, targets, scale, bias = parts
    return PairEmbeddings(_array(*queries), _array(*targets), scale, bias)


def _array_parts(array: np.ndarray) -> _Array:
    return array.tobytes(), array.dtype.str, array.shape


def _array(data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape)


def _pack(parts: object) -> bytes:
    return pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)


def _unpack(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301 - nothing that a client sent
