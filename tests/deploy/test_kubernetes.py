"""The manifests, by the schemas that a cluster would check them with.

Core kinds by ``kubernetes-validate``, which carries Kubernetes' own schemas; KubeRay's
kinds by its CRDs, where the checkout has them beside it. The CRD of a ServiceMonitor is
in neither: its few keys are checked by hand. Kustomize is not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from curator.config import load_config

CORE = {
    "ConfigMap",
    "Deployment",
    "Job",
    "Namespace",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Service",
}
KUBERAY = {"RayCluster": "ray.io_rayclusters", "RayJob": "ray.io_rayjobs"}
KUBERNETES = "1.30"
Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    # The loader in C: a CRD has thousands of lines.
    return list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "deploy/kubernetes"


@pytest.fixture(scope="module")
def manifests(folder: Path) -> list[Manifest]:
    return [
        manifest for path in sorted(folder.glob("*.yaml")) for manifest in load(path)
    ]


@pytest.fixture(scope="module")
def kustomization(repository: Path) -> Manifest:
    (found,) = load(repository / "deploy/kustomization.yaml")
    return found


def one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    (found,) = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and name in (None, manifest["metadata"].get("name"))
    ]
    return found


def strict(schema: Any) -> Any:
    """Refuses keys that a schema does not name; a cluster drops them in silence."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    open_ended = (
        "additionalProperties" in schema
        or schema.get("x-kubernetes-preserve-unknown-fields")
        or not isinstance(schema.get("properties"), dict)
        or schema.get("type") != "object"
    )
    return found if open_ended else {**found, "additionalProperties": False}


@pytest.fixture(scope="module")
def kuberay(repository: Path) -> dict[str, jsonschema.Draft202012Validator]:
    """What validates each kind of KubeRay's."""
    crds = repository.parent / "shared/kuberay"
    if not crds.is_dir():
        pytest.skip(f"KubeRay's CRDs are not at {crds}")
    validators = {}
    for kind, name in KUBERAY.items():
        (crd,) = load(crds / f"{name}.yaml")
        (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
        assert crd["spec"]["names"]["kind"] == kind
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        validators[kind] = jsonschema.Draft202012Validator(schema)
    return validators


def ray_clusters(manifests: list[Manifest]) -> list[Manifest]:
    """The specifications of the cluster, and of the one that the job makes."""
    cluster = one(manifests, "RayCluster")["spec"]
    return [cluster, one(manifests, "RayJob")["spec"]["rayClusterSpec"]]


def pod_templates(manifests: list[Manifest]) -> list[Manifest]:
    """The template of every pod."""
    templates = [
        one(manifests, kind)["spec"]["template"] for kind in ("Deployment", "Job")
    ]
    for cluster in ray_clusters(manifests):
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        templates += [group["template"] for group in groups]
    return templates


def select(labels: Manifest, selector: Manifest) -> bool:
    """Whether a label selector, of both of its forms, chooses these labels."""
    return all(
        labels.get(key) == value
        for key, value in selector.get("matchLabels", {}).items()
    ) and all(
        expression["operator"] == "In"
        and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


# --- schemas -----------------------------------------------------------------


def test_every_manifest_is_of_a_kind_that_is_checked_here(manifests):
    kinds = {manifest["kind"] for manifest in manifests}

    assert kinds <= CORE | set(KUBERAY) | {"ServiceMonitor"}
    assert kinds >= {
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "RayCluster",
        "RayJob",
        "Service",
        "ServiceMonitor",
    }


def test_core_kinds_follow_their_schemas(manifests):
    checked = [manifest for manifest in manifests if manifest["kind"] in CORE]

    assert checked
    for manifest in checked:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_mistake_in_a_core_kind_would_be_seen(manifests):
    service = one(manifests, "Service", "curator")
    wrong = {**service, "spec": {**service["spec"], "portz": []}}

    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KUBERAY))
def test_kinds_of_kuberay_follow_its_crds(manifests, kuberay, kind):
    kuberay[kind].validate(one(manifests, kind))


@pytest.mark.slow
def test_a_mistake_in_a_kind_of_kuberay_would_be_seen(manifests, kuberay):
    cluster = one(manifests, "RayCluster")
    group = {**cluster["spec"]["headGroupSpec"], "rayStartParam": {}}
    wrong = {**cluster, "spec": {**cluster["spec"], "headGroupSpec": group}}

    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):
        kuberay["RayCluster"].validate(wrong)


def test_pods_inside_kinds_of_kuberay_are_pods(manifests):
    # Also where KubeRay's CRDs are not at hand; and these schemas are stricter.
    for template in pod_templates(manifests):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_service_monitor_finds_the_metrics_port(manifests):
    monitor = one(manifests, "ServiceMonitor")
    service = one(manifests, "Service", "curator-metrics")
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]

    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"selector", "endpoints"}
    assert set(endpoint) == {"port", "path", "interval"}
    assert endpoint["port"] == port["name"]
    found = [
        manifest["metadata"]["name"]
        for manifest in manifests
        if manifest["kind"] == "Service"
        and select(manifest["metadata"]["labels"], monitor["spec"]["selector"])
    ]
    assert found == ["curator-metrics"]


# --- what fits together ------------------------------------------------------


def test_kustomize_applies_everything_but_the_job(kustomization, repository, folder):
    listed = {repository / "deploy" / name for name in kustomization["resources"]}

    assert listed == set(folder.glob("*.yaml")) - {folder / "score-job.yaml"}
    assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}


def test_the_folder_that_is_served_has_its_configuration_and_its_code(
    kustomization, repository
):
    (generator,) = kustomization["configMapGenerator"]
    files = {
        entry.rpartition("=")[0] or Path(entry).name: entry.rpartition("=")[2]
        for entry in generator["files"]
    }

    assert set(files) == {"server.toml", "pairs.py", "make_data.py"}
    assert all((repository / "deploy" / name).is_file() for name in files.values())
    assert generator["name"] == "curator"


def test_the_configuration_is_one_that_this_version_reads(folder, manifests):
    config = load_config(folder / "server.toml")
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    (scorers,) = one(manifests, "RayCluster")["spec"]["workerGroupSpecs"]
    (worker,) = scorers["template"]["spec"]["containers"]

    assert config.server.listen == f"0.0.0.0:{ports['grpc']}"
    assert config.server.metrics == f"0.0.0.0:{ports['metrics']}"
    assert config.server.state_dir in mounts
    assert config.server.executor == "ray"
    assert config.ray.min_scorers == scorers["replicas"]
    assert config.ray.num_gpus == worker["resources"]["limits"]["nvidia.com/gpu"]
    assert {model.device for model in config.models.values()} == {"cuda"}


def test_claims_and_config_maps_exist(manifests, kustomization):
    claims = {
        manifest["metadata"]["name"]
        for manifest in manifests
        if manifest["kind"] == "PersistentVolumeClaim"
    }
    maps = {generator["name"] for generator in kustomization["configMapGenerator"]}

    for template in pod_templates(manifests):
        spec = template["spec"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name", "curator") in maps
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims
        for container in spec["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= set(volumes)


def test_pods_may_do_no_more_than_they_need(manifests):
    for template in pod_templates(manifests):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001  # of the image
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


# --- the service -------------------------------------------------------------


def test_one_process_owns_the_state(manifests):
    spec = one(manifests, "Deployment")["spec"]
    claim = one(manifests, "PersistentVolumeClaim", "curator-state")

    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_the_service_joins_the_cluster_with_its_token(manifests):
    cluster = one(manifests, "RayCluster")["metadata"]["name"]
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    environment = {entry["name"]: entry for entry in container["env"]}

    # The names that KubeRay gives: of the head's service, and of the token's secret.
    assert environment["RAY_ADDRESS"]["value"] == f"{cluster}-head-svc:6379"
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    secret = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": cluster, "key": "auth_token"}
    # Without TLS and tokens: the network policy is what protects it.
    assert container["args"] == [
        "./serve-on-ray.sh",
        "/srv/curator/server.toml",
        "--insecure",
    ]
    assert "command" not in container  # which would take the place of tini


def test_health_is_asked_by_grpc(manifests):
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 50051}


def test_every_ray_cluster_wants_a_token_and_is_of_one_version(manifests):
    for cluster in ray_clusters(manifests):
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["rayVersion"] == "2.60.0"
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_version_of_ray_is_the_one_that_is_installed(manifests, repository):
    pins = (repository / "constraints.txt").read_text().splitlines()

    for cluster in ray_clusters(manifests):
        assert f"ray=={cluster['rayVersion']}" in pins


def test_the_job_calls_the_scoring_entry_point(manifests, folder):
    job = one(manifests, "RayJob")
    config = load_config(folder / "server.toml")
    python, script, path, *arguments = job["spec"]["entrypoint"].split()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))

    assert (python, script) == ("python", "/opt/curator/workers/score.py")
    assert path == "/srv/curator/server.toml"
    assert options["--pool"] in config.pools
    assert options["--model"] in config.models
    assert options["--out"].startswith("/data/")
    assert job["spec"]["shutdownAfterJobFinishes"] is True


# --- who may connect to what -------------------------------------------------


def allowed(manifests: list[Manifest], labels: Manifest) -> list[Manifest]:
    """The ingress rules of the pods of these labels."""
    rules = []
    for manifest in manifests:
        if manifest["kind"] == "NetworkPolicy":
            assert manifest["spec"]["policyTypes"] == ["Ingress"]
            if select(labels, manifest["spec"]["podSelector"]):
                rules += manifest["spec"].get("ingress", [])
    return rules


def from_elsewhere(rules: list[Manifest]) -> list[int]:
    """The ports that pods of another namespace may reach; all ports are -1."""
    return [
        port["port"]
        for rule in rules
        if any(
            "namespaceSelector" in peer or "ipBlock" in peer for peer in rule["from"]
        )
        for port in rule.get("ports", [{"port": -1}])
    ]


def test_everything_is_closed_that_is_not_opened(manifests):
    assert one(manifests, "NetworkPolicy", "deny-ingress")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
    }


def test_trainers_reach_the_grpc_port_alone(manifests):
    deployment = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    rules = allowed(manifests, deployment)
    open_to_all = [
        rule["ports"] for rule in rules if {"namespaceSelector": {}} in rule["from"]
    ]

    assert open_to_all == [[{"protocol": "TCP", "port": 50051}]]
    assert sorted(from_elsewhere(rules)) == [9464, 50051]
    service = one(manifests, "Service", "curator")
    assert [port["port"] for port in service["spec"]["ports"]] == [50051]
    assert "type" not in service["spec"]  # inside the cluster


def test_ray_is_reached_by_ray_and_the_service_alone(manifests):
    pods = [
        template["metadata"]["labels"]
        for template in pod_templates(manifests)
        if template["metadata"]["labels"]["app.kubernetes.io/component"] == "ray"
    ]
    service = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    stranger = {"app.kubernetes.io/name": "curator", "app.kubernetes.io/component": "x"}

    assert len(pods) == 4
    for labels in pods:
        rules = allowed(manifests, labels)
        (inside,) = [rule["from"] for rule in rules if "ports" not in rule]
        (peer,) = inside
        assert select(labels, peer["podSelector"])
        assert select(service, peer["podSelector"])
        assert not select(stranger, peer["podSelector"])
        assert from_elsewhere(rules) == [8265]  # KubeRay's operator, by its labels


def test_ray_reaches_the_node_of_the_service(manifests):
    deployment = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    (rule,) = [rule for rule in allowed(manifests, deployment) if "ports" not in rule]

    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "ray"


def test_a_drain_waits_for_somebody_to_choose_when(manifests):
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    deployment = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]

    assert budget["maxUnavailable"] == 0
    assert select(deployment, budget["selector"])
