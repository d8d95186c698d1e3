"""What Prometheus gets to read: real sessions, a real scrape, its own parser."""

import dataclasses
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import towers
import worlds
from prometheus_client.parser import text_string_to_metric_families
from worlds import JOINT, UNIFORM, train

from curator.client import connect
from curator.engine import Registry
from curator.engine._remote_scorer import Counts
from curator.errors import ServiceError
from curator.pools import MemoryPool
from curator.rpc.v1 import curation_pb2 as pb
from curator.service import Server
from curator.service.metrics import _COSTS, MetricsServer

LABELS = ("session", "model")


@pytest.fixture
def world(tmp_path):
    """Yields a registry of ``joint`` and ``uniform``, and a client of its server."""
    joint = dataclasses.replace(JOINT, num_steps=3)  # nothing is scored after that
    config = worlds.config(tmp_path, joint=joint, uniform=UNIFORM)
    registry = Registry(config, {"pairs": MemoryPool(worlds.pairs())})
    server = Server(registry)
    try:
        with connect(server.address) as service:
            yield registry, service
    finally:
        server.stop(grace_seconds=0.0)
        registry.close()


def scrape(metrics):
    """Returns the types of what is there, and the values by name and labels."""
    with urllib.request.urlopen(f"http://{metrics.address}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        families = list(text_string_to_metric_families(answer.read().decode()))
    types = {family.name: family.type for family in families}
    values = {}
    for family in families:
        for name, labels, value, *_ in family.samples:
            key = [labels[label] for label in LABELS if label in labels]
            values[name, *key] = value
    return types, values


@pytest.fixture
def metrics(world):
    server = MetricsServer(world[0], "127.0.0.1:0")
    yield server
    server.close()


def test_a_scrape_says_what_the_session_says_of_itself(world, metrics):
    _, service = world
    session = service.open("joint")
    train(session, 3, model=towers.build())

    _, values = scrape(metrics)

    info = service.describe("joint")
    assert values["curator_steps_defined_total", "joint"] == 3
    assert values["curator_steps_closed_total", "joint"] == 3
    candidates = 3 * JOINT.super_batch_size
    assert values["curator_candidates_total", "joint"] == candidates
    assert values["curator_examples_scored_total", "joint", "learner"] == candidates
    for model in ("learner", "reference"):
        name = ("curator_examples_scored_total", "joint", model)
        assert values[name] == info.cost[f"num_{model}_scored"]
    for name in ("scoring", "selection"):
        seconds = values[f"curator_{name}_seconds_total", "joint"]
        assert seconds == pytest.approx(info.cost[f"{name}_seconds"])
        assert seconds > 0


def test_what_happens_to_scorers_is_in_the_metrics_and_on_the_wire():
    names = {field.name for field in dataclasses.fields(Counts)} | {"num_ray_restarts"}

    assert names <= {entry for _, _, entry in _COSTS}
    assert names <= {field.name for field in pb.SessionCost.DESCRIPTOR.fields}


def test_what_was_odd_is_counted(tmp_path):
    joint = dataclasses.replace(JOINT, num_steps=1)
    config = worlds.config(tmp_path, learner={"args": {"nan_on": 2}}, joint=joint)
    registry = Registry(config, {"pairs": MemoryPool(worlds.pairs())})
    server = Server(registry)
    metrics = MetricsServer(registry, "127.0.0.1:0")
    try:
        with connect(server.address) as service:
            train(service.open("joint"), 1, model=towers.build(nan_on=2))
            _, values = scrape(metrics)
            cost = service.describe("joint").cost
    finally:
        metrics.close()
        server.stop(grace_seconds=0.0)
        registry.close()

    quarantined = values["curator_candidates_quarantined_total", "joint"]
    assert quarantined == cost["num_quarantined"] > 0
    assert values["curator_losses_quarantined_total", "joint"] == 0
    assert values["curator_steps_late_total", "joint"] == 0


def test_sessions_appear_when_they_are_opened(world, metrics):
    _, service = world

    def labels():
        values = scrape(metrics)[1]
        return [
            label for name, *label in values if name == "curator_steps_closed_total"
        ]

    assert labels() == []
    service.open("uniform")
    assert labels() == [["uniform"]]
    service.open("joint")
    assert labels() == [["joint"], ["uniform"]]


def test_every_metric_of_ours_is_a_counter_by_its_rules(world, metrics):
    _, service = world
    service.open("uniform")

    types, values = scrape(metrics)

    ours = {name: kind for name, kind in types.items() if name.startswith("curator_")}
    assert set(ours.values()) == {"counter"}
    assert len(ours) == 14
    readme = Path(__file__).parents[2] / "deploy" / "README.md"
    table = readme.read_text(encoding="utf-8").partition("| metric |")[2]
    assert [name for name in ours if f"`{name}_total`" not in table] == []
    samples = {key[0] for key in values if key[0].startswith("curator_")}
    assert all(name.endswith("_total") for name in samples)
    assert types["process_resident_memory_bytes"] == "gauge"  # of the process itself


def test_counters_go_on_where_they_were_after_a_restart(tmp_path):
    config = worlds.config(tmp_path, uniform=UNIFORM)
    values = []
    for num_steps in (3, 0):
        registry = Registry(config, {"pairs": MemoryPool(worlds.pairs())})
        server = Server(registry)
        metrics = MetricsServer(registry, "127.0.0.1:0")
        try:
            with connect(server.address) as service:
                session = service.open("uniform")
                if num_steps:
                    train(session, num_steps)
                values.append(scrape(metrics)[1])
        finally:
            metrics.close()
            server.stop(grace_seconds=0.0)
            registry.close()

    closed = ("curator_steps_closed_total", "uniform")
    assert [found[closed] for found in values] == [3, 3]


def test_a_port_in_use_is_an_error_of_ours(world, metrics):
    with pytest.raises(ServiceError, match=r"cannot listen on .* server\.metrics"):
        MetricsServer(world[0], metrics.address)


def test_an_address_of_elsewhere_is_an_error_of_ours(world):
    with pytest.raises(ServiceError, match=r"not of this machine"):
        MetricsServer(world[0], "203.0.113.1:0")


def test_a_closed_server_gives_its_port_back(world):
    first = MetricsServer(world[0], "127.0.0.1:0")
    first.close()

    with socket.socket() as other:
        host, _, port = first.address.rpartition(":")
        assert other.connect_ex((host, int(port))) != 0


@pytest.mark.slow
def test_a_missing_package_says_how_to_install_it():
    program = """
import sys
sys.modules["prometheus_client"] = None
from curator.errors import MissingDependencyError
try:
    import curator.service.metrics
except MissingDependencyError as error:
    print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert "pip install 'batch-curator[metrics]'" in process.stdout


@pytest.mark.slow
def test_serve_says_where_the_metrics_are(tmp_path):
    config = tmp_path / "server.toml"
    config.write_text(
        '[server]\nlisten = "127.0.0.1:0"\nmetrics = "127.0.0.1:0"\n'
        f'state_dir = "{tmp_path}"\n'
    )
    command = [sys.executable, "-m", "curator.cli.__main__", "serve", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout.readline, "")
        (url,) = [
            line.split()[1]
            for line in iter(lambda: next(lines), "connect with\n")
            if line.startswith("  metrics  ")
        ]
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        process.terminate()
        rest = process.communicate()[0]

    assert "# TYPE curator_steps_defined_total counter" in text
    assert rest.splitlines()[-1] == "stopped"
    assert process.returncode == 0
