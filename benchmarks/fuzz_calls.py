"""Sends inputs to a server, and judges its answers."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from benchmarks.fuzz_inputs import METHODS, Input, make_input
from benchmarks.fuzz_world import World
from curator.rpc.v1 import curation_pb2 as pb

__all__ = ["Answer", "Caller", "Finding", "Outcome", "minimal", "send_all", "work"]

# An answer that takes longer is a hang.
MAX_SECONDS = 30.0
# A stream whose next step waits for a report is silent, as it should be.
SILENT_SECONDS = 0.1
SILENT = "silent"
_BATCHES_READ = 4
_WAITS_FOR_NOBODY = ("uniform",)
_SERVICE = pb.DESCRIPTOR.services_by_name["CurationService"].full_name
# What gRPC itself answers to bytes that are no such message.
_UNDECODABLE = "Exception deserializing request!"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended.

    Attributes:
        code: The name of the status, or ``silent``.
        details: Its message.
        response: The response of a call that has one.
    """

    code: str
    details: str = ""
    response: bytes = b""

    @property
    def is_finding(self) -> bool:
        """Whether a server should never answer like this."""
        if self.code == "INTERNAL":
            return self.details != _UNDECODABLE
        return self.code in ("UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED")

    @property
    def signature(self) -> str:
        """What is the same about answers that have the same cause."""
        return re.sub(r"\d+", "#", f"{self.code}: {self.details}")[:160]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """An answer that should not be, and what it was given to."""

    sent: Input
    number: int
    answer: Answer

    @property
    def key(self) -> tuple[str, str]:
        """The call, and what is the same about answers of one cause."""
        return self.sent.rpc, self.answer.signature


@dataclasses.dataclass
class Outcome:
    """What some inputs were answered.

    Attributes:
        codes: How often each call was answered with each status.
        findings: One of each kind.
        next_select: The step that each session selects next.
    """

    codes: collections.Counter[tuple[str, str]] = dataclasses.field(
        default_factory=collections.Counter[tuple[str, str]]
    )
    findings: dict[tuple[str, str], Finding] = dataclasses.field(
        default_factory=dict[tuple[str, str], Finding]
    )
    next_select: dict[str, int] = dataclasses.field(default_factory=dict[str, int])

    def merge(self, other: Outcome) -> None:
        """Adds another outcome."""
        self.codes.update(other.codes)
        self.findings = {**other.findings, **self.findings}
        for name, step in other.next_select.items():
            self.next_select[name] = max(step, self.next_select.get(name, 0))


class Caller:
    """Makes calls of bytes. A context manager."""

    def __init__(self, address: str) -> None:
        channel: Any = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._channel = channel
        self._unary: dict[str, Any] = {
            name: channel.unary_unary(f"/{_SERVICE}/{name}") for name in METHODS
        }
        self._stream: dict[str, Any] = {
            name: (
                channel.stream_stream(f"/{_SERVICE}/{name}")
                if method.server_streaming
                else channel.stream_unary(f"/{_SERVICE}/{name}")
            )
            for name, method in METHODS.items()
            if method.client_streaming
        }

    def __enter__(self) -> Caller:
        """Returns the caller."""
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, rpc: str, messages: Iterable[bytes]) -> Answer:
        """Makes a call; of a stream of batches, reads the first few."""
        messages = list(messages)
        try:
            if METHODS[rpc].server_streaming:
                return self._read(rpc, messages)
            if len(messages) == 1:  # the same on the wire, without a thread for it
                response = self._unary[rpc](messages[0], timeout=MAX_SECONDS)
            else:
                response = self._stream[rpc](iter(messages), timeout=MAX_SECONDS)
        except grpc.RpcError as error:
            return _answer(error)
        return Answer("OK", response=response)

    def _read(self, rpc: str, messages: list[bytes]) -> Answer:
        may_wait = _may_wait(messages)
        stream = self._stream[rpc](
            iter(messages), timeout=SILENT_SECONDS if may_wait else MAX_SECONDS
        )
        try:
            for number, _ in enumerate(stream, 1):
                if number == _BATCHES_READ:
                    break
        except grpc.RpcError as error:
            answer = _answer(error)
            is_silent = may_wait and answer.code == "DEADLINE_EXCEEDED"
            return Answer(SILENT) if is_silent else answer
        finally:
            stream.cancel()
        return Answer("OK")


def _answer(error: grpc.RpcError) -> Answer:
    assert isinstance(error, grpc.Call)
    return Answer(error.code().name, error.details() or "")


def _may_wait(messages: list[bytes]) -> bool:
    """Whether a stream may rightly be silent: its first step waits for a report."""
    try:
        start = pb.StreamBatchesRequest.FromString(messages[0]).start
    except (DecodeError, IndexError):
        return False
    return start.session not in _WAITS_FOR_NOBODY and not (
        start.super_batches and start.session in ("topk", "joint", "uds")
    )


def send_all(
    caller: Caller, world: World, seed: int, numbers: Iterable[int], num_threads: int
) -> Outcome:
    """Makes and sends inputs, some at a time.

    Args:
        caller: Whom they go through.
        world: What makes inputs valid; its ``next_select`` is kept up to date.
        seed: Of all of them.
        numbers: Their numbers.
        num_threads: How many are in flight.
    """
    outcome = Outcome(next_select=world.next_select)

    def send(number: int) -> tuple[int, Input, Answer]:
        sent = make_input(world, seed, number)
        return number, sent, caller.call(sent.rpc, sent.messages)

    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        for number, sent, answer in threads.map(send, numbers):
            outcome.codes[sent.rpc, answer.code] += 1
            if answer.is_finding:
                finding = Finding(sent, number, answer)
                outcome.findings.setdefault(finding.key, finding)
            elif sent.rpc == "SelectBatch" and answer.code == "OK":
                _advance(world, sent, answer)
    return outcome


def _advance(world: World, sent: Input, answer: Answer) -> None:
    """Notes that a step has been selected."""
    start = next(
        message.start
        for message in map(pb.SelectBatchRequest.FromString, sent.messages)
        if message.HasField("start")
    )
    step = pb.SelectBatchResponse.FromString(answer.response).header.step
    if start.session in world.next_select:
        known = world.next_select[start.session]
        world.next_select[start.session] = max(known, step + 1)


def work(
    address: str, world: World, seed: int, numbers: range, num_threads: int
) -> Outcome:
    """Sends inputs from a process of its own."""
    with Caller(address) as caller:
        return send_all(caller, world, seed, numbers, num_threads)


def minimal(
    finding: Finding, call: Callable[[str, list[bytes]], Answer]
) -> list[bytes]:
    """Returns fewer and shorter messages that are answered the same, if there are.

    Args:
        finding: What to make smaller.
        call: Makes a call.
    """
    rpc = finding.sent.rpc
    messages = list(finding.sent.messages)
    if finding.answer.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return messages  # each try would take as long, or the server

    def same(tried: list[bytes]) -> bool:
        return call(rpc, tried).signature == finding.answer.signature

    for at in reversed(range(len(messages))):
        shorter = messages[:at] + messages[at + 1 :]
        if shorter and same(shorter):
            messages = shorter
    cls = getattr(pb, METHODS[rpc].input_type.name)
    for at, data in enumerate(messages):
        try:
            message = cls.FromString(data)
        except DecodeError:
            continue
        for path in _fields(message):
            tried = cls.FromString(messages[at])
            _clear(tried, path)
            candidate = [*messages[:at], tried.SerializeToString(), *messages[at + 1 :]]
            if len(candidate[at]) < len(messages[at]) and same(candidate):
                messages = candidate
    return messages


def _fields(message: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the paths of the fields that are set, outer ones first."""
    paths: list[tuple[str, ...]] = []
    for field, value in message.ListFields():  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - any message
        here = (*path, str(field.name))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        paths.append(here)
        if hasattr(value, "ListFields") and len(path) < 3:  # pyright: ignore[reportUnknownArgumentType]
            paths += _fields(value, here)  # pyright: ignore[reportUnknownArgumentType]
    return paths


def _clear(message: object, path: tuple[str, ...]) -> None:
    *outer, last = path
    for name in outer:
        message = getattr(message, name)
    message.ClearField(last)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - any message
