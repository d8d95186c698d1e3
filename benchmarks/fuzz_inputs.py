"""Hostile inputs for every call of the service, as a function of a seed and a number.

An input is the bytes of a call's messages. Most begin as a call that the server would
take, of which a few fields are replaced by hostile values, so that they get past the
first check; some are hostile throughout; the rest are the bytes of such messages cut,
flipped and spliced, or random bytes. Calls that have no generator here are made from
their message's description, so that a new one is fuzzed at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct

from benchmarks.fuzz_payloads import hostile_arrow, hostile_weights, mangled
from benchmarks.fuzz_world import FUZZED, OPENED, WORLD_SIZES, World
from curator.policies import POLICIES
from curator.rpc.v1 import curation_pb2 as pb
from curator.samplers import SAMPLERS

__all__ = ["METHODS", "Input", "hostile", "make_input"]

Rng: TypeAlias = np.random.Generator
T = TypeVar("T")

METHODS = {
    method.name: method
    for method in pb.DESCRIPTOR.services_by_name["CurationService"].methods
}
# How often each is called; one that is not named, this often.
_SHARES = {
    "OpenSession": 15,
    "StreamBatches": 15,
    "SelectBatch": 20,
    "ReportStep": 25,
    "PublishSnapshot": 10,
    "ListSessions": 2,
}
_OTHER_SHARE = 5
_NAMES = list(METHODS)
_ODDS = np.array([_SHARES.get(name, _OTHER_SHARE) for name in _NAMES], np.float64)
_CUMULATIVE = np.cumsum(_ODDS / _ODDS.sum())[:-1]

_INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 9, 24, 25, 400, 401, 1000, 65535, 65536),
    *(2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53, 2**53 + 1),
    *(2**63 - 1, 2**63, -(2**63), 2**64 - 1),
)
_FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e308, -1e308, 3e38, 2.0**53, 1e300),
    *(float("nan"), float("inf"), float("-inf")),
)
_STRINGS = (
    *("", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "~/.ssh", "C:\\con"),
    *("\0", "a\0b", "\n", "\x1b[2J", "uniform/../topk", "uniform ", "UNIFORM"),
    *("\u202euniform", "\ud7ff", "\U0001f4a3" * 8, "e\u0301", "a" * 101, "a" * 50_000),
    *("'; DROP TABLE steps; --", "%s%n{}", "${HOME}", "os:system", "http://localhost/"),
    *("learner.loss", "pairs", "towers", "image", "number", "caption", "nan"),
)
_INTEGER_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (31, True),
    FieldDescriptor.CPPTYPE_INT64: (63, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
    FieldDescriptor.CPPTYPE_ENUM: (31, True),
}
_COUNTS = (0,) * 4 + (1,) * 8 + (3,) * 7 + (1000,)
_SESSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """One call.

    Attributes:
        rpc: The call's name.
        messages: The bytes of its messages.
        kind: ``fields``, ``hostile``, ``mangled`` or ``random``.
        session: Whom a valid one would have addressed.
    """

    rpc: str
    messages: tuple[bytes, ...]
    kind: str
    session: str


_KINDS = ("fields",) * 12 + ("hostile",) * 2 + ("mangled",) * 5 + ("random",)


def make_input(world: World, seed: int, number: int) -> Input:
    """Returns an input: the same one for the same arguments."""
    rng = np.random.default_rng([seed, number])
    rpc = _NAMES[int(np.searchsorted(_CUMULATIVE, rng.random()))]
    session = _pick(rng, FUZZED)
    kind = _pick(rng, _KINDS)
    cls: type[Message] = getattr(pb, METHODS[rpc].input_type.name)
    if kind == "random":
        count = int(rng.integers(1, 4))
        messages = [rng.bytes(int(rng.integers(0, 200))) for _ in range(count)]
    elif kind == "hostile":
        made = [hostile(cls(), rng) for _ in range(int(rng.integers(0, 4)))]
        messages = [m.SerializeToString() for m in made]
    else:
        make = _VALID.get(rpc)
        made = make(world, session, rng) if make else [hostile(cls(), rng)]
        if kind == "fields":
            for _ in range(int(rng.integers(0, 3))):
                _spoil(made[int(rng.integers(len(made)))], rng)
        messages = [m.SerializeToString() for m in made]
        if kind == "mangled":
            at = int(rng.integers(len(messages)))
            messages[at] = mangled(messages[at], rng)
    if METHODS[rpc].client_streaming:
        messages = _reordered(messages, rng)
    else:
        messages = messages[:1] or [b""]
    return Input(rpc, tuple(_tame(cls, m, rng) for m in messages), kind, session)


def _reordered(messages: list[bytes], rng: Rng) -> list[bytes]:
    """Returns the messages of a stream, sometimes without the first, or with two."""
    chance = rng.random()
    if chance < 0.03:
        return messages[1:]
    if chance < 0.06:
        return messages[:1] + messages
    if chance < 0.08:
        return messages + messages[:1]
    if chance < 0.10:
        return [messages[i] for i in rng.permutation(len(messages))]
    return messages


def _tame(cls: type[Message], data: bytes, rng: Rng) -> bytes:
    """Returns a message that opens no session but those of a few names.

    Each session is a folder and a thread, and there are a million inputs.
    """
    try:
        message: Any = cls.FromString(data)
    except DecodeError:
        return data
    changed = False
    for field in cls.DESCRIPTOR.fields:
        if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
            continue
        value = getattr(message, field.name)
        if _SESSION_NAME.fullmatch(value) and value not in (*FUZZED, *OPENED):
            setattr(message, field.name, _pick(rng, OPENED))
            changed = True
    return message.SerializeToString() if changed else data


def _pick(rng: Rng, values: Sequence[T]) -> T:
    """Returns one of some values, without making an array of them first."""
    return values[int(rng.integers(len(values)))]


# --- calls that the server would take ------------------------------------------------


def _open(world: World, session: str, rng: Rng) -> list[Message]:
    request = pb.OpenSessionRequest(protocol_version=1, name=session)
    if rng.random() < 0.7:
        request.name = _pick(rng, OPENED)
        spec = pb.SessionSpec(
            pool="pairs", batch_size=8, super_batch_size=24, num_steps=100
        )
        for field, known in (("policy", POLICIES), ("sampler", SAMPLERS)):
            component: pb.Component = getattr(spec, field)
            component.name = _pick(rng, sorted(known))
            names = [f.name for f in dataclasses.fields(known[component.name])]  # pyright: ignore[reportArgumentType] - policies are dataclasses
            for name in names[: int(rng.integers(len(names) + 1))]:
                _set_hostile(component.fields, name, rng, depth=2)
        if rng.random() < 0.3:
            spec.learner = "towers"
        if rng.random() < 0.3:
            spec.columns.names.extend(["image", _pick(rng, _STRINGS)])
        request.spec.CopyFrom(spec)
    return [request]


def _stream(world: World, session: str, rng: Rng) -> list[Message]:
    world_size = _pick(rng, WORLD_SIZES)
    start = pb.StreamStart(
        session=session,
        rank=int(rng.integers(world_size)),
        world_size=world_size,
        from_step=int(rng.integers(40)),
        super_batches=bool(session in world.next_select),
        credits=int(rng.integers(4)),
    )
    if rng.random() < 0.5:
        start.columns.names.extend(["image", "caption"][: int(rng.integers(3))])
    requests: list[Message] = [pb.StreamBatchesRequest(start=start)]
    for _ in range(int(rng.integers(4))):
        credits_ = _pick(rng, [0, 1, 2, 1000, 2**31, 2**32 - 1])
        requests.append(pb.StreamBatchesRequest(credits=credits_))
    return requests


def _select(world: World, session: str, rng: Rng) -> list[Message]:
    if session not in world.next_select:
        session = _pick(rng, list(world.next_select))
    step = world.next_select[session] - int(rng.random() < 0.1)
    ids = world.candidates[step % len(world.candidates)]
    start = pb.SelectStart(session=session, step=max(step, 0), example_ids=_raw(ids))
    if rng.random() < 0.7:
        for role in (start.learner, start.reference):
            role.logit_scale = _pick(rng, [1.0, 10.0, *_FLOATS])
            if rng.random() < 0.5:
                role.logit_bias = _pick(rng, [-1.0, *_FLOATS])
    payload = hostile_arrow(session, len(ids), rng)
    return [
        pb.SelectBatchRequest(start=start),
        *(pb.SelectBatchRequest(chunk=chunk) for chunk in _cut(payload, rng)),
    ]


def _report(world: World, session: str, rng: Rng) -> list[Message]:
    if session not in world.batches:
        session = _pick(rng, list(world.batches))
    step = int(rng.integers(len(world.batches[session])))
    world_size = _pick(rng, WORLD_SIZES)
    rank = int(rng.integers(world_size))
    ids = np.split(world.batches[session][step], world_size)[rank]
    request = pb.ReportStepRequest(
        session=session,
        step=step,
        rank=rank,
        world_size=world_size,
        example_ids=_raw(ids),
    )
    if rng.random() < 0.8:
        losses = rng.random(len(ids)).astype("<f4")
        if rng.random() < 0.5:
            odd = [np.nan, np.inf, -np.inf, 3e38, -1.0, 0.0, 1e-40]
            losses[int(rng.integers(len(ids)))] = rng.choice(odd)
        request.losses = losses.tobytes()
    return [request]


def _publish(world: World, session: str, rng: Rng) -> list[Message]:
    weights = hostile_weights(world.weights, rng)
    step = int(rng.integers(1, 2000))
    start = pb.PublishStart(
        session=session if rng.random() < 0.2 else "learner",
        snapshot_step=step,
        report_step=step,
        num_bytes=len(weights),
    )
    return [
        pb.PublishSnapshotRequest(start=start),
        *(pb.PublishSnapshotRequest(chunk=chunk) for chunk in _cut(weights, rng)),
    ]


def _fork(world: World, session: str, rng: Rng) -> list[Message]:
    request = pb.ForkSessionRequest(
        session=session,
        name=_pick(rng, OPENED),
        step=int(rng.integers(8)),
        forget_memory=bool(rng.integers(2)),
    )
    return [request]


_VALID: dict[str, Callable[[World, str, Rng], list[Message]]] = {
    "OpenSession": _open,
    "StreamBatches": _stream,
    "SelectBatch": _select,
    "ReportStep": _report,
    "PublishSnapshot": _publish,
    "ForkSession": _fork,
}


def _raw(ids: np.ndarray) -> bytes:
    return ids.astype("<i8").tobytes()


def _cut(data: bytes, rng: Rng) -> list[bytes]:
    """Returns bytes in one to three chunks."""
    cuts = sorted(int(rng.integers(len(data) + 1)) for _ in range(rng.integers(3)))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# --- hostile values ------------------------------------------------------------------


def _spoil(message: Any, rng: Rng) -> None:
    """Replaces one field of a message, at whatever depth, by a hostile value."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = fields[int(rng.integers(len(fields)))]
    if isinstance(message, Struct):
        _set_hostile(message, _pick(rng, _STRINGS), rng, depth=3)
    elif field.message_type is not None and not field.is_repeated:
        present = [f for f, _ in message.ListFields() if f.message_type is not None]
        _spoil(getattr(message, (present[0] if present else field).name), rng)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        _fill(message, field, rng)


def hostile(message: Any, rng: Rng, depth: int = 0) -> Any:
    """Fills a message with hostile values."""
    if isinstance(message, Struct):
        for _ in range(int(rng.integers(4))):
            _set_hostile(message, _pick(rng, _STRINGS), rng, depth=4)
        return message
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.6:
            _fill(message, field, rng, depth)
    return message


def _fill(message: Any, field: Any, rng: Rng, depth: int = 0) -> None:
    if field.message_type is not None:
        if depth < 6 and not field.is_repeated:
            child = getattr(message, field.name)
            child.SetInParent()
            hostile(child, rng, depth + 1)
        return
    if field.is_repeated:
        count = _pick(rng, _COUNTS)
        getattr(message, field.name).extend(_scalar(field, rng) for _ in range(count))
        return
    setattr(message, field.name, _scalar(field, rng))


def _scalar(field: Any, rng: Rng) -> Any:
    kind = field.cpp_type
    if kind in _INTEGER_BITS:
        bits, signed = _INTEGER_BITS[kind]
        value = _pick(rng, _INTEGERS)
        least = -(2**bits) if signed else 0
        return value if least <= value < 2**bits else 2**bits - 1
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return _pick(rng, _FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return bool(rng.integers(2))
    if field.type == FieldDescriptor.TYPE_BYTES:
        values = rng.choice(np.array(_INTEGERS[:-3], np.int64), rng.integers(30))
        return values.tobytes()[: int(rng.integers(240))]
    pool = (*_STRINGS, *FUZZED, *OPENED)
    return _pick(rng, pool)


def _set_hostile(struct: Any, key: str, rng: Rng, depth: int) -> None:
    """Sets an entry of a ``Struct`` to a hostile value, now and then a deep one."""
    value: Any = [
        lambda: _pick(rng, _INTEGERS),
        lambda: _pick(rng, _FLOATS),
        lambda: _pick(rng, _STRINGS),
        lambda: None,
        lambda: bool(rng.integers(2)),
        lambda: [_pick(rng, _FLOATS) for _ in range(rng.integers(5))],
        lambda: [0.5] * (10_000 if rng.random() < 0.01 else 30),
        lambda: {_pick(rng, _STRINGS): 1.0},
        lambda: _nest(_pick(rng, [depth, 20, 30])),
    ][int(rng.integers(9))]()
    struct[key] = value


def _nest(depth: int) -> Any:
    value: Any = 1.0
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value
