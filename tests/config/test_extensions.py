"""Policies and samplers of one's own: in a configuration, a server, a client."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import curator
from curator.config import parse_config, parse_session, session_to_table
from curator.errors import ConfigError
from curator.policies import POLICIES, ForeignPolicy, TopK, register_policy
from curator.rng import Noise
from curator.samplers import SAMPLERS, ForeignSampler, Run, Uniform, register_sampler

NUM_EXAMPLES = 64
SAMPLER = """
import dataclasses
from typing import ClassVar

import numpy as np

from curator.samplers import register_sampler


class Plan:
    mean_weight = 1.0

    def __init__(self, ids):
        self.ids, self.num_examples = ids, len(ids)

    def take(self, start, stop):
        return self.ids[start:stop], None


class Planner:
    def __init__(self, ids):
        self.ids, self.num_examples_per_epoch = ids, len(ids)

    def plan(self, epoch):
        return Plan(self.ids)

    def observe(self, ids, losses):
        raise AssertionError


@register_sampler
@dataclasses.dataclass(frozen=True)
class Backwards:
    name: ClassVar[str] = "backwards"
    columns: ClassVar[frozenset[str]] = frozenset()
    first: int = 0

    def start(self, run):
        return Planner(np.arange(run.num_examples)[::-1].copy())
"""
CONFIG = """
[server]
listen = "127.0.0.1:0"
state_dir = "state"
python_path = ["."]
extensions = ["margins", "backwards"]

[pools.text]
format = "virtual"
num_examples = 64

[models.losses]
kind = "table"
path = "losses.parquet"

[sessions.run]
pool = "text"
batch_size = 4
super_batch_size = 16
num_steps = 8
reference = "losses"
sampler = "backwards"
policy = { name = "near", target = 0.5 }
"""


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Takes back what a test registers and imports."""
    for known in (POLICIES, SAMPLERS):
        before = dict(known)
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name in before:
            monkeypatch.setitem(known, name, before[name])
    names = set(POLICIES), set(SAMPLERS)
    yield
    for known, kept in zip((POLICIES, SAMPLERS), names, strict=True):
        for name in set(known) - kept:
            del known[name]
    for name in ("margins", "backwards", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    """A configuration with the policy of the documentation, and a sampler."""
    text = (repository / "docs/policies/index.md").read_text()
    (code,) = re.findall(r"```python\n(import dataclasses.*?)```", text, re.DOTALL)
    (tmp_path / "margins.py").write_text(code)
    (tmp_path / "backwards.py").write_text(SAMPLER)
    (tmp_path / "server.toml").write_text(CONFIG)
    ids = np.arange(NUM_EXAMPLES)
    losses = pa.table({"example_id": ids, "loss": loss_of(ids)})
    parquet.write_table(losses, tmp_path / "losses.parquet")
    return tmp_path


def loss_of(ids: np.ndarray) -> np.ndarray:
    return (ids * 7 % 16 / 8).astype(np.float32)


def chosen(step: int) -> list[int]:
    """Returns the batch of a step, by hand."""
    start = NUM_EXAMPLES - 16 * (step % 4)
    candidates = np.arange(start - 16, start)
    distance = np.abs(loss_of(candidates) - np.float32(0.5))
    return candidates[np.lexsort([candidates, distance])][:4].tolist()


@contextlib.contextmanager
def serving(folder: Path) -> Generator[str]:
    """Serves in another process; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "curator.cli.__main__", "serve", "server.toml"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.slow
def test_a_server_has_them_and_its_clients_need_not(folder: Path) -> None:
    found: list[list[int]] = []
    for _ in range(2):  # the server is started again in between
        with serving(folder) as address, curator.connect(address) as service:
            session = service.open("run")
            for batch in session.batches():
                session.report(batch)
                found.append(batch.ids.tolist())
                if len(found) % 4 == 0:
                    break
            spec = session.info.spec
            assert spec.policy == ForeignPolicy(
                "near", {"target": 0.5}, frozenset({"reference.loss"})
            )
            assert spec.sampler == ForeignSampler("backwards", {"first": 0})
            # What a client was told it can give back, and make others of.
            service.open("run", spec)
            service.open("again", dataclasses.replace(spec, seed=9))
            shown = [info.name for info in service.open_sessions()]
            assert sorted(shown) == ["again", "run"]

    assert found == [chosen(step) for step in range(8)]
    assert "near" not in POLICIES
    # A service in this process cannot use them, and makes nothing of them.
    config = {
        "server": {"state_dir": str(folder / "own")},
        "pools": {"text": {"format": "virtual", "num_examples": NUM_EXAMPLES}},
    }
    foreign = ForeignPolicy("near", {}, frozenset({"reference.loss"}))
    without = curator.SessionSpec(
        pool="text",
        batch_size=4,
        policy=foreign,
        sampler=ForeignSampler("backwards", {}),
        features="trainer",
    )
    parts: list[dict[str, Any]] = [
        {"sampler": Uniform()},
        {"policy": TopK(score="easy_reference")},
    ]
    with curator.local(config) as service:
        for key, changes in zip(("policy", "sampler"), parts, strict=True):
            with pytest.raises(
                ConfigError, match=rf"{key}: .* is another process's, and not known in"
            ):
                service.open("x", dataclasses.replace(without, **changes))
        assert service.names() == []
    with pytest.raises(ConfigError, match=r"'near' is another process's"):
        foreign.select(np.arange(2), {}, 1, Noise(seed=0, step=0))
    with pytest.raises(ConfigError, match=r"'backwards' is another process's"):
        without.sampler.start(Run(num_examples=1, super_batch_size=1, seed=0))


def test_a_service_in_this_process_and_the_commands_have_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with curator.local(folder / "server.toml") as service:
        session = service.open("run")
        found = [batch.ids.tolist() for batch in session.batches()]
        assert type(session.info.spec.policy).__name__ == "Near"
    assert found == [chosen(step) for step in range(8)]

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "curator.cli.__main__", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    shown = call("inspect", "server.toml", "run", "--dropped", "0", "--json")
    assert len(json.loads(shown.stdout)["ids"]) == 12
    shown = call("inspect", "state", "run")
    assert shown.returncode == 1
    assert "unknown policy 'near'" in shown.stderr
    assert "where its module is imported (server.extensions)" in shown.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, r"cannot import 'broken': there is no such module; .*python_path"),
        (
            "import nowhere_at_all",
            r"cannot import 'broken': ModuleNotFoundError: .*now",
        ),
        ("1 / 0", r"cannot import 'broken': ZeroDivisionError"),
        (
            "import curator.policies as p\n@p.register_policy\nclass Mine: name = 'm'",
            r".*policy broken.Mine: must be a frozen dataclass.*@r",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    tmp_path: Path, code: str | None, message: str
) -> None:
    if code is not None:
        (tmp_path / "broken.py").write_text(code)
    table = {"server": {"python_path": ["."], "extensions": ["broken"]}}

    with pytest.raises(ConfigError, match=r"server.extensions: " + message):
        parse_config(table, base=tmp_path)


def make(name: Any, **members: Any) -> type[Any]:
    return dataclasses.dataclass(frozen=True)(type("Mine", (), {**members, **name}))


WHOLE = {"needs": frozenset(), "select": lambda *_: None}


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (dataclasses.dataclass(type("Mine", (), WHOLE)), "must be a frozen dataclass"),
        (make({}, **WHOLE), r"'name' must be a word .*got None"),
        (make({"name": "My Own"}, **WHOLE), "got 'My Own'"),
        (make({"name": "mine", "__annotations__": {"name": str}}, **WHOLE), "no field"),
        (make({"name": "mine"}, needs=frozenset()), "lacks select; a policy has needs"),
        (make({"name": "topk"}, **WHOLE), r"'topk' is the name of curator.*TopK alr"),
    ],
)
def test_a_class_that_is_no_policy_is_refused(cls: type[Any], message: str) -> None:
    before = dict(POLICIES)

    with pytest.raises(ConfigError, match=message):
        register_policy(cls)

    assert before == POLICIES
    assert POLICIES["topk"] is TopK


def test_a_class_that_is_no_sampler_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sampler .*lacks columns, start"):
        register_sampler(make({"name": "mine"}))


def test_a_class_that_is_defined_anew_takes_its_own_place() -> None:
    first, second = (make({"name": "mine"}, **WHOLE) for _ in range(2))

    assert register_policy(first) is first
    register_policy(second)

    assert POLICIES["mine"] is second
    spec = parse_session({"pool": "p", "batch_size": 2, "policy": "mine"})
    assert isinstance(spec.policy, second)
    assert session_to_table(spec)["policy"] == {"name": "mine"}


def test_an_object_without_a_name_is_told_how_it_gets_one() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(TopK):
        name: ClassVar[str] = "mine"

    spec = curator.SessionSpec(
        pool="p", batch_size=2, policy=Mine(), features="trainer"
    )
    with pytest.raises(ConfigError, match=r"Mine\(.*no policy .*put @register_policy"):
        session_to_table(spec)
