"""compose.yaml: as Compose's own schema has it, and what it promises."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from curator.config import load_config

SCHEMA = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    return load(repository / "deploy/compose.yaml")


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_it_follows_the_schema(repository, name):
    jsonschema.validate(
        load(repository / "deploy" / name), json.loads(SCHEMA.read_text())
    )


def test_a_mistake_would_be_seen(compose):
    wrong = {**compose, "services": {"head": {"image": "x", "command_line": "y"}}}

    with pytest.raises(jsonschema.ValidationError, match="command_line"):
        jsonschema.validate(wrong, json.loads(SCHEMA.read_text()))


def test_it_has_the_service_and_a_cluster_and_prometheus(services):
    assert set(services) == {"head", "scorer", "service", "prometheus"}


def test_only_the_grpc_port_is_published(services):
    published = {
        name: service["ports"]
        for name, service in services.items()
        if "ports" in service
    }

    assert list(published) == ["service"]
    (port,) = published["service"]
    assert port.endswith(":50051:50051")
    assert not any("network_mode" in service for service in services.values())


def test_every_ray_process_has_the_token(services):
    for name in ("head", "scorer", "service"):
        environment = services[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        # Compose refuses to start without one.
        assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_what_is_named_exists(compose, services, repository):
    deploy = repository / "deploy"
    mounted = [
        mount.split(":")[0]
        for service in services.values()
        for mount in service["volumes"]
        if not mount.startswith("$")
    ]
    build = services["service"]["build"]

    for source in mounted:
        there = (
            (deploy / source).exists()
            if "/" in source
            else source in compose["volumes"]
        )
        assert there, source
    assert (deploy / build["context"]).resolve() == repository
    assert (repository / build["dockerfile"]).is_file()
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)


def test_the_service_is_apart_from_the_head_and_has_a_node_of_its_own(services):
    script, config, *options = services["service"]["command"]

    assert (script, config) == ("./serve-on-ray.sh", "/srv/curator/server.ray.toml")
    # Only the network protects it; the port is published on loopback.
    assert options == ["--insecure"]
    assert services["service"]["ports"][0].startswith("${CURATOR_LISTEN:-127.0.0.1}")
    assert services["service"]["environment"]["RAY_ADDRESS"] == "head:6379"
    assert "--head" in services["head"]["command"]


def test_scorers_join_by_the_entry_point_of_theirs(services):
    command = services["scorer"]["command"]

    assert command[:2] == ["python", "workers/scorers.py"]
    assert command[command.index("--address") + 1] == "head:6379"
    # The image's own check is the service's.
    assert services["scorer"]["healthcheck"] == {"disable": True}


def test_the_folder_that_is_served_is_the_same_everywhere(services):
    default = "${CURATOR_FOLDER:-./example}:/srv/curator:ro"

    assert all(
        default in services[name]["volumes"] for name in ("head", "scorer", "service")
    )


def test_the_configuration_is_one_that_this_version_reads(services, repository):
    config = load_config(repository / "deploy/example/server.ray.toml")

    assert config.server.listen == "0.0.0.0:50051"
    assert config.server.executor == "ray"
    assert config.ray.address == "auto"  # the node beside it, of RAY_ADDRESS
    # Its state is on the volume.
    assert f"state:{config.server.state_dir}" in services["service"]["volumes"]


def test_the_two_examples_differ_in_where_they_run_alone(repository):
    local = load_config(repository / "deploy/example/server.toml")
    ray = load_config(repository / "deploy/example/server.ray.toml")

    assert (local.pools, local.models, local.sessions) == (
        ray.pools,
        ray.models,
        ray.sessions,
    )
    assert local.server.executor == "local"


def test_prometheus_asks_where_the_service_answers(services, repository):
    scrape = load(repository / "deploy/prometheus.yaml")
    config = load_config(repository / "deploy/example/server.ray.toml")
    (target,) = [
        target
        for job in scrape["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]

    host, port = target.split(":")
    assert host in services
    assert config.server.metrics == f"0.0.0.0:{port}"
    assert re.fullmatch(r"\d+s", scrape["global"]["scrape_interval"])
    assert set(scrape) == {"global", "scrape_configs"}
