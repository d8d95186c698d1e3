"""The command: what it prints, and what a wrong call gets."""

import dataclasses
import json
import socket
import subprocess
import sys

import pytest
import worlds
from worlds import UNIFORM, served

from curator.cli.__main__ import main
from curator.cli.sessions import _lines
from curator.rpc.v1 import curation_pb2 as pb
from curator.sessions import SessionInfo


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "curator.cli.__main__", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def write(tmp_path, text):
    path = tmp_path / "server.toml"
    path.write_text(text)
    return str(path)


VIRTUAL = """
[pools.p]
format = "virtual"
num_examples = 100
[sessions.s]
pool = "p"
batch_size = 4
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["sessions", "-h"]]
)
def test_help_has_an_example(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "example:\n  " in out or "COMMAND" in out


@pytest.mark.parametrize("arguments", [[], ["srve"], ["serve"], ["serve", "x", "y"]])
def test_a_wrong_call_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "usage: curator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "unknown key 'server.prot'"),
        (
            VIRTUAL.replace("batch_size = 4", "batch_size = 'four'"),
            "valid integer; got",
        ),
        (VIRTUAL.replace('pool = "p"', 'pool = "q"'), "no pool 'q'"),
        (
            VIRTUAL.replace(
                'format = "virtual"\nnum_examples = 100',
                'format = "arrow"\npath = "nowhere/*.arrow"',
            ),
            "nowhere",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line_on_stderr(tmp_path, text, message):
    result = run("serve", write(tmp_path, text))

    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith("curator: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_port_in_use_is_one_line_on_stderr(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        address = f"127.0.0.1:{held.getsockname()[1]}"
        result = run("serve", write(tmp_path, VIRTUAL), "--listen", address)

    assert result.returncode == 1
    assert f"cannot listen on {address}" in result.stderr
    assert "Traceback" not in result.stderr


def test_sessions_shows_where_each_is(tmp_path, capsys):
    with served(worlds.config(tmp_path, s=UNIFORM)) as service:
        worlds.train(service.open("s"), 3)
        assert main(["sessions", service._transport._target]) == 0

    out = capsys.readouterr().out
    assert "s: step 3, " in out
    assert "8 of 8 by Uniform(), drawn by Uniform(), pool pairs" in out


def test_sessions_opens_none_and_shows_the_others_beside_a_broken_one(tmp_path, capsys):
    config = worlds.config(
        tmp_path, **dict.fromkeys("abc", UNIFORM), server={"max_sessions": 2}
    )
    with served(config) as service:
        worlds.train(service.open("b"), 1)
    changed = dataclasses.replace(UNIFORM, batch_size=4)
    config = dataclasses.replace(config, sessions={**config.sessions, "b": changed})
    with served(config) as service:
        worlds.train(service.open("a"), 2)
        target = service._transport._target
        assert main(["sessions", target]) == 0
        out = capsys.readouterr().out.splitlines()
        assert main(["sessions", target, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        service.open("c")  # there is room for it

    assert out[0].startswith("a: step 2, ")
    assert out[2:] == [f"{name}: not open since the server started" for name in "bc"]
    assert [each["name"] for each in found["sessions"]] == ["a"]
    assert found["not_open"] == ["b", "c"]


def test_sessions_tells_what_happened_to_scorers():
    cost = dict.fromkeys((f.name for f in pb.SessionCost.DESCRIPTOR.fields), 0.0)
    info = SessionInfo(
        name="s",
        spec=UNIFORM,
        fingerprint="f",
        num_examples=200,
        num_steps_per_epoch=25,
        num_steps=None,
        num_defined=9,
        next_step=1,
        needs_learner=False,
        needs_initial_snapshot=False,
        depends_on_losses=False,
        cost={**cost, "num_lost_scorers": 2.0, "num_retried_shards": 3.0},
    )

    assert _lines(info)[2:] == ["  scorers lost 2, shards retried 3"]
    assert _lines(dataclasses.replace(info, cost=cost))[2:] == []


@pytest.mark.slow
def test_sessions_of_nobody_is_an_error(capsys):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        assert main(["sessions", f"127.0.0.1:{held.getsockname()[1]}"]) == 1

    assert "curator: no curator server at" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["nowhere", "", "localhost:", "host:port"])
def test_an_address_that_is_none_is_told_at_once(capsys, target):
    assert main(["sessions", target]) == 1

    assert "target: HOST:PORT or unix:PATH" in capsys.readouterr().err


def test_a_place_to_listen_that_is_none_is_told(tmp_path):
    result = run("serve", write(tmp_path, VIRTUAL), "--listen", "nonsense")

    assert result.returncode == 1
    assert "listen: expected 'HOST:PORT' or 'unix:PATH'; got 'non" in result.stderr
