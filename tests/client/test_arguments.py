"""What a trainer passes that it should not: told where it is passed."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import towers
import worlds
from worlds import TOPK, UNIFORM, served

import curator
from curator import ServerSpec, SessionSpec
from curator.client._arguments import check_session, check_target, check_whole
from curator.client._batch import check_format
from curator.client._state import read_state
from curator.errors import ConfigError, SessionMismatchError


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "10.0.0.1:1",
        "gpu-7.example.org:65535",
        "[::1]:50051",
        "[fe80::1%eth0]:50051",
        "unix:/tmp/curator.sock",
        "dns:///head:50051",
    ],
)
def test_addresses_are_taken(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost",
        "localhost:",
        "localhost:grpc",
        "localhost:0",
        "localhost:65536",
        ":50051",
        "::1:50051",
        "http://localhost:50051",
        "local host:50051",
        "unix:",
    ],
)
def test_what_is_no_address_is_told_at_once(target: str) -> None:
    with pytest.raises(ConfigError, match=r"target: HOST:PORT or unix:PATH, as `cura"):
        curator.connect(target, timeout=1e9)


def test_a_socket_whose_path_is_too_long_is_told_at_both_ends() -> None:
    longest = "unix:/" + "x" * 106
    why = r"at most 107 bytes; got 108: '/x"

    check_target(longest)
    with pytest.raises(ConfigError, match=f"target: the path of a Unix .*{why}"):
        curator.connect(longest + "x", timeout=1e9)
    ServerSpec(listen=longest)
    with pytest.raises(ValueError, match=why):
        ServerSpec(listen=longest + "x")


@pytest.mark.parametrize("value", [0, -1, "3", 3.0, None])
def test_what_is_no_whole_number_is_told(value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^n: a whole number of at least 1; got {value!r}$"
    ):
        check_whole("n", value, 1)


def test_a_word_is_no_list_of_columns(tmp_path: Path) -> None:
    word: Any = "image"
    with served(worlds.config(tmp_path, s=UNIFORM), kind="local") as service:
        batches = service.open("s").batches(columns=word)
        with pytest.raises(
            ConfigError, match=r"names, such as \['image'\]; got 'image'"
        ):
            next(batches)


def test_whole_numbers_of_numpy_are_taken() -> None:
    check_whole("n", np.int64(1), 1)


def test_the_arguments_of_open_in_another_order_are_told() -> None:
    check_session("s", None)
    check_session("s", SessionSpec(pool="p", batch_size=2))
    for name, spec in (({"pool": "p"}, "s"), ("s", "p"), (None, None)):
        with pytest.raises(ConfigError, match=r"is opened by its name, and a SessionS"):
            check_session(name, spec)


@pytest.mark.parametrize("state", [None, 3, [("step", 3)]])
def test_what_is_no_state_is_told(state: Any) -> None:
    with pytest.raises(SessionMismatchError, match=r"is what state_dict\(\) returned"):
        read_state(state, "s", "f")


def test_a_device_that_is_not_there_is_told() -> None:
    check_format("torch", "cpu")
    with pytest.raises(
        ValueError, match="device: arrays of NumPy have none, so not 'c"
    ):
        check_format("numpy", "cpu")
    with pytest.raises(
        ValueError, match="device: torch has none called 'nowhere' here"
    ):
        check_format("torch", "nowhere")


def test_a_rank_as_the_environment_has_it_is_told() -> None:
    # In a process of its own, since here annotations are checked before that.
    code = """
from curator.errors import SessionError
from curator.sessions import rank_slice
try:
    rank_slice(8, "0", 2)
except SessionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "a whole number in [0, world_size); got rank '0' of 2" in done.stdout


def test_a_forgotten_report_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "curator")
    with served(worlds.config(tmp_path, s=UNIFORM)) as service:
        session = service.open("s")
        for batch in session.batches():
            if batch.step == 3:
                continue
            session.report(batch)
            if batch.step == 3 + 63:
                assert caplog.messages == []
            if batch.step == 3 + 130:
                break

        (message,) = caplog.messages
        assert "step 3 is not reported, and 64 later ones are" in message
        assert session.state_dict()["step"] == 3
        session.skip(1)
        assert session.state_dict()["step"] == 3 + 131


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_a_trainer_that_publishes_no_more_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, every: int
) -> None:
    caplog.set_level(logging.WARNING, "curator")
    spec = dataclasses.replace(TOPK, publish_every=every)
    with served(worlds.config(tmp_path, s=spec)) as service:
        session = service.open("s")
        session.publish(towers.build())
        for batch in session.batches():
            step = batch.step + 1
            if step <= 2 * every:
                session.publish(towers.build(seed=step))
            session.report(batch, loss=np.ones(8, np.float32) + batch.ids)
            if step == (2 + 64) * every - 1:
                assert caplog.messages == []
            if step == (2 + 70) * every:
                break

        (message,) = caplog.messages
        assert f"no weights are published since step {2 * every}: batches" in message
        assert f"publish_every = {every} says" in message


@pytest.mark.slow
def test_a_rank_that_does_not_publish_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "curator")
    with served(worlds.config(tmp_path, s=TOPK)) as service:
        first, second = (service.open("s", rank=r, world_size=2) for r in range(2))
        first.publish(towers.build())
        for batches in zip(first.batches(), second.batches(), strict=True):
            first.publish(towers.build(seed=batches[0].step))
            for session, batch in zip((first, second), batches, strict=True):
                session.report(batch)
            if batches[0].step == 70:
                break

        assert caplog.messages == []
