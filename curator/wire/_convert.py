"""Messages and domain values: pairs of pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from google.protobuf import json_format

from curator.config import SessionSpec, Weighting, parse_session, session_to_table
from curator.errors import ConfigError, FeatureError
from curator.policies import POLICIES, ForeignPolicy
from curator.rpc.v1 import curation_pb2 as pb
from curator.samplers import SAMPLERS, ForeignSampler
from curator.sessions import SessionInfo

__all__ = [
    "PROTOCOL_VERSION",
    "columns_from_proto",
    "columns_to_proto",
    "floats_from_proto",
    "floats_to_proto",
    "ids_from_proto",
    "ids_to_proto",
    "info_from_proto",
    "info_to_proto",
    "spec_from_proto",
    "spec_to_proto",
    "weighting_from_proto",
    "weighting_to_proto",
]

PROTOCOL_VERSION = 1

_FEATURES = {
    "server": pb.FEATURE_SOURCE_SERVER,
    "trainer": pb.FEATURE_SOURCE_TRAINER,
}
_ON_LATE = {"wait": pb.ON_LATE_WAIT, "uniform": pb.ON_LATE_UNIFORM}
_WEIGHTING = {"sum": pb.WEIGHTING_SUM, "mean": pb.WEIGHTING_MEAN}
_SAME_NAME = (
    "pool",
    "seed",
    "batch_size",
    "super_batch_size",
    "learner",
    "reference",
    "max_ahead",
    "late_after_seconds",
    "publish_every",
    "num_steps",
    "num_epochs",
)


def ids_to_proto(ids: np.ndarray) -> bytes:
    """Returns int64 ids as little-endian bytes."""
    return ids.astype("<i8", copy=False).tobytes()


def ids_from_proto(data: bytes) -> np.ndarray:
    """Returns int64 ids of little-endian bytes."""
    return _array(data, "<i8", "example_ids")


def floats_to_proto(values: np.ndarray) -> bytes:
    """Returns floats as little-endian float32 bytes."""
    return values.astype("<f4", copy=False).tobytes()


def floats_from_proto(data: bytes) -> np.ndarray:
    """Returns float32 values of little-endian bytes."""
    return _array(data, "<f4", "float32 values")


def _array(data: bytes, dtype: str, what: str) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    if len(data) % size:
        msg = f"{what}: {len(data)} bytes is not a whole number of {size}-byte values"
        raise FeatureError(msg)
    return np.frombuffer(bytearray(data), dtype)


def columns_to_proto(columns: Sequence[str] | None) -> pb.ColumnList | None:
    """Returns a list of columns; None, for the default, is an absent field."""
    return None if columns is None else pb.ColumnList(names=columns)


def columns_from_proto(
    message: pb.StreamStart | pb.SessionSpec,
) -> list[str] | None:
    """Returns the columns that a message asks for, None for the default."""
    return list(message.columns.names) if message.HasField("columns") else None


def spec_to_proto(spec: SessionSpec) -> pb.SessionSpec:
    """Returns the message of a session specification."""
    table = session_to_table(spec)
    policy = _component_to_proto(_mapping(table["policy"]))
    policy.needs.extend(sorted(spec.policy.needs))
    return pb.SessionSpec(
        sampler=_component_to_proto(_mapping(table["sampler"])),
        policy=policy,
        features=_FEATURES[spec.features],
        on_late=_ON_LATE[spec.on_late],
        weighting=_WEIGHTING[spec.weighting],
        reference_outputs=spec.reference_outputs,
        columns=columns_to_proto(spec.columns),
        **{key: table[key] for key in _SAME_NAME if key in table},  # pyright: ignore[reportArgumentType] - a table of mixed types
    )


def _component_to_proto(table: Mapping[str, object]) -> pb.Component:
    message = pb.Component(name=str(table["name"]))
    message.fields.update({k: v for k, v in table.items() if k != "name"})  # pyright: ignore[reportArgumentType] - TOML's types are JSON's
    return message


def _policy_from_proto(message: pb.Component) -> object:
    table = _component_from_proto(message)
    if message.name in POLICIES:
        return table
    del table["name"]
    return ForeignPolicy(message.name, table, frozenset(message.needs))


def _sampler_from_proto(message: pb.Component) -> object:
    table = _component_from_proto(message)
    if message.name in SAMPLERS:
        return table
    del table["name"]
    return ForeignSampler(message.name, table)


def _component_from_proto(message: pb.Component) -> dict[str, object]:
    try:
        fields = json_format.MessageToDict(message.fields)
    except ValueError as error:  # NaN and infinities, which JSON does not have
        msg = f"{message.name!r}: every number must be finite: {error}"
        raise ConfigError(msg) from error
    return {"name": message.name, **{k: _whole(v) for k, v in fields.items()}}


def _whole(value: object) -> object:
    """Returns a value whose whole numbers are integers, which Struct does not have.

    Where a float is meant, the configuration takes an integer as well.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {key: _whole(item) for key, item in items}
    return value


def spec_from_proto(
    message: pb.SessionSpec, *, may_be_foreign: bool = False
) -> SessionSpec:
    """Returns the session specification of a message.

    Args:
        message: The message.
        may_be_foreign: Whether policy and sampler need not be known here.

    Raises:
        ConfigError: It is wrong, in the words that a configuration file would get.
    """
    table: dict[str, object] = {
        key: getattr(message, key)
        for key in _SAME_NAME
        # An optional field that is absent, or one whose zero means the default.
        if (
            message.HasField(key)  # pyright: ignore[reportArgumentType] - _SAME_NAME
            if message.DESCRIPTOR.fields_by_name[key].has_presence
            else getattr(message, key)
        )
    }
    table.setdefault("pool", message.pool)
    columns = columns_from_proto(message)
    if columns is not None:
        table["columns"] = columns
    if message.reference_outputs:
        table["reference_outputs"] = list(message.reference_outputs)
    if message.features:
        table["features"] = _name_of(_FEATURES, message.features)
    if message.on_late:
        table["on_late"] = _name_of(_ON_LATE, message.on_late)
    if message.weighting:
        table["weighting"] = _name_of(_WEIGHTING, message.weighting)
    if message.HasField("policy"):
        read = _policy_from_proto if may_be_foreign else _component_from_proto
        table["policy"] = read(message.policy)
    if message.HasField("sampler"):
        read = _sampler_from_proto if may_be_foreign else _component_from_proto
        table["sampler"] = read(message.sampler)
    return parse_session(table)


def info_to_proto(info: SessionInfo) -> pb.SessionInfo:
    """Returns the message of what a session is and where it is."""
    cost = {f.name: info.cost.get(f.name, 0) for f in pb.SessionCost.DESCRIPTOR.fields}
    message = pb.SessionInfo(
        name=info.name,
        spec=spec_to_proto(info.spec),
        fingerprint=info.fingerprint,
        num_examples=info.num_examples,
        num_steps_per_epoch=info.num_steps_per_epoch,
        num_steps=info.num_steps,
        num_defined=info.num_defined,
        next_step=info.next_step,
        needs_learner=info.needs_learner,
        needs_initial_snapshot=info.needs_initial_snapshot,
        depends_on_losses=info.depends_on_losses,
    )
    for name, value in cost.items():
        is_count = name.startswith("num_")
        setattr(message.cost, name, int(value) if is_count else float(value))
    return message


def info_from_proto(message: pb.SessionInfo) -> SessionInfo:
    """Returns what a session is and where it is."""
    return SessionInfo(
        name=message.name,
        spec=spec_from_proto(message.spec, may_be_foreign=True),
        fingerprint=message.fingerprint,
        num_examples=message.num_examples,
        num_steps_per_epoch=message.num_steps_per_epoch,
        num_steps=message.num_steps if message.HasField("num_steps") else None,
        num_defined=message.num_defined,
        next_step=message.next_step,
        needs_learner=message.needs_learner,
        needs_initial_snapshot=message.needs_initial_snapshot,
        depends_on_losses=message.depends_on_losses,
        cost={
            field.name: float(getattr(message.cost, field.name))
            for field in pb.SessionCost.DESCRIPTOR.fields
        },
    )


def weighting_to_proto(weighting: Weighting) -> pb.Weighting.ValueType:
    """Returns the enumeration value of a weighting."""
    return _WEIGHTING[weighting]


def weighting_from_proto(value: int) -> Weighting:
    """Returns the weighting of an enumeration value, ``sum`` where it is not set."""
    if not value:
        return "sum"
    return cast("Weighting", _name_of(_WEIGHTING, value))


def _name_of(names: Mapping[str, int], value: int) -> str:
    for name, number in names.items():
        if number == value:
            return name
    msg = f"unknown enumeration value {value}; known: {dict(names)}"
    raise ConfigError(msg)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        msg = f"expected a mapping; got {value!r}"
        raise TypeError(msg)
    return value  # pyright: ignore[reportUnknownVariableType]
