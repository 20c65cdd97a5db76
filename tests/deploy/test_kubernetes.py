"""The manifests are valid and restricted, and their numbers agree with each other."""

import configparser
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app import NAME
from app.connection_budget import Budget, check_budget
from app.health.readiness import FIRST_SECONDS
from app.settings import Settings
from tests.cluster import ROLES
from tests.deploy.manifests import FOLDER, OVERLAYS, configuration, manifest, manifests, migration, pods, rendered
from tests.paths import ROOT

OLDEST, NEWEST = "1.31", "1.37"
"""The supported versions of Kubernetes, as in deploy/README.md."""

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number, in units or bytes."""
    number = str(text).rstrip("mMGi")
    return float(number) * {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[str(text).removeprefix(number)]


def settings(overlay):
    """The settings of a pod of the overlay."""
    values = {name.lower(): value for name, value in configuration(overlay).items() if not name.endswith("_FILE")}
    return Settings.load(_env_file=None, database_url="postgresql://a@b/c", **values)


def pre_stop_seconds(pod):
    """The duration of the preStop hook, during which the pod continues to serve."""
    command, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert "sleep" == command
    return float(seconds)


def test_every_manifest_is_valid(overlay, tmp_path):
    """Every object is valid for the oldest and the newest version of Kubernetes, without unknown fields."""
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered(overlay))
    done = subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "--strict", "-k", OLDEST, "-k", NEWEST, file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr
    others = {"PodMonitor", "PrometheusRule"}  # their schemas are not part of Kubernetes
    checked = {one["kind"] for one in manifests(overlay)} - others
    assert {kind.lower() for kind in checked} == set(
        re.findall(r"passed for resource (\w+)/", done.stdout + done.stderr)
    )


def test_pods_meet_the_restricted_standard(overlay):
    """Pods meet the Pod Security Standard "restricted", which the namespace enforces, with a read-only root."""
    namespace = next(one for one in manifests(overlay) if one["kind"] == "Namespace")
    assert "restricted" == namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    for name, pod in pods(overlay).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert 0 != pod["securityContext"]["runAsUser"]
        assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {"secret", "emptyDir"} >= {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


def test_every_container_has_requests_and_limits(overlay):
    """CPU and memory have requests and limits, and volumes in memory use at most half of the memory limit."""
    for name, pod in pods(overlay).items():
        for container in pod["containers"]:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            for resource in ("cpu", "memory"):
                assert quantity(requests[resource]) <= quantity(limits[resource]), name
            in_memory = [quantity(volume["emptyDir"]["sizeLimit"]) for volume in pod["volumes"] if "emptyDir" in volume]
            assert sum(in_memory) <= quantity(limits["memory"]) / 2


def test_every_image_has_a_version(overlay):
    """Every image has a tag other than latest, and the service has one image only."""
    images = [container["image"] for pod in pods(overlay).values() for container in pod["containers"]]

    assert all(re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", image) for image in images), images
    assert 1 == len({image for image in images if image.startswith(f"{NAME}:")})


def test_probes_use_the_operators_port(overlay):
    """Startup and liveness probe /health, readiness probes /health/ready, all at OPS_PORT."""
    (container,) = pods(overlay)[f"Deployment {NAME}"]["containers"]
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert {"path": "/health", "port": "ops"} == probes["startup"] == probes["liveness"]
    assert {"path": "/health/ready", "port": "ops"} == probes["readiness"]
    assert {"http": settings(overlay).port, "ops": settings(overlay).ops_port} == ports


def test_the_readiness_probe_waits_for_the_first_check(overlay):
    """Its timeout is longer than an answer can take."""
    (container,) = pods(overlay)[f"Deployment {NAME}"]["containers"]

    assert FIRST_SECONDS < container["readinessProbe"]["timeoutSeconds"]


def test_the_grace_period_is_long_enough(overlay):
    """The grace period is at least preStop + GRACEFUL_SECONDS + 5 s, and preStop at least 5 s."""
    pod = pods(overlay)[f"Deployment {NAME}"]
    graceful = settings(overlay).graceful_seconds

    assert pre_stop_seconds(pod) + graceful + 5 <= pod["terminationGracePeriodSeconds"]
    # Every proxy removes the pod from its endpoints before the pod stops to serve.
    assert pre_stop_seconds(pod) >= 5


def test_a_rollout_never_reduces_the_number_of_pods(overlay):
    """A rollout adds one pod before it removes one, and a node drain evicts one pod at a time."""
    deployment = manifest(overlay, "Deployment")

    assert {"maxSurge": 1, "maxUnavailable": 0} == deployment["spec"]["strategy"]["rollingUpdate"]
    assert "replicas" not in deployment["spec"]
    budget = manifest(overlay, "PodDisruptionBudget")["spec"]
    assert 1 == budget["maxUnavailable"]
    assert deployment["spec"]["selector"] == budget["selector"]


def test_the_largest_number_of_pods_fits_the_connection_limits(overlay):
    """The limits of PgBouncer and the role allow DATABASE_CONNECTIONS for each of maxReplicas + maxSurge pods."""
    used = settings(overlay)
    most = manifest(overlay, "HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    instances = most + manifest(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    wanted = instances * used.database_connections
    (limit,) = map(int, re.findall(r"ALTER ROLE items_app .*CONNECTION LIMIT (\d+)", ROLES.read_text()))

    assert instances == used.instances
    check_budget(budget=used.database_connections, workers=used.web_concurrency)
    if "none" == used.database_pooler:
        assert Budget(
            instances=instances, connections_per_instance=used.database_connections, server_connections=limit
        ).fits
        return
    ini = configparser.ConfigParser(comment_prefixes=(";", "%"))
    ini.read(ROOT / "deploy" / "pgbouncer" / "pgbouncer.ini")
    pooler = ini["pgbouncer"]
    replicas = manifest(overlay, "Deployment", "items-pgbouncer")["spec"]
    # One PgBouncer must accept all clients while the other is not available.
    assert wanted <= int(pooler["max_client_conn"])
    most_poolers = replicas["replicas"] + replicas["strategy"]["rollingUpdate"]["maxSurge"]
    assert most_poolers * int(pooler["max_db_connections"]) <= limit
    assert int(pooler["default_pool_size"]) <= int(pooler["max_db_connections"])
    if "pgbouncer-prepared" == used.database_pooler:
        assert int(pooler["max_prepared_statements"]) >= 100


def test_workers_follow_the_cpu_limit(overlay):
    """WEB_CONCURRENCY is the CPU limit, rounded up, on any node, and each pod has shared memory of its own."""
    pod = pods(overlay)[f"Deployment {NAME}"]
    (container,) = pod["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm")
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])

    assert "WEB_CONCURRENCY" in configuration(overlay)
    assert math.ceil(quantity(container["resources"]["limits"]["cpu"])) == settings(overlay).web_concurrency
    assert "Memory" == volume["emptyDir"]["medium"]
    assert quantity(volume["emptyDir"]["sizeLimit"]) >= 32 * 2**20


def test_secrets_are_files(overlay):
    """No manifest and no environment contains a secret. Each secret is a file that the pod's group can read."""
    assert not [one for one in manifests(overlay) if one["kind"] == "Secret"]
    assert not re.search(r"secretKeyRef|postgresql://|redis://|password", rendered(overlay), re.IGNORECASE)
    for pod in pods(overlay).values():
        assert {0o440} == {volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume}


def test_every_variable_is_a_setting(overlay):
    """Every environment variable of a pod is the name of a setting."""
    known = {name.upper() for name in Settings.model_fields}
    named = {v["name"] for pod in pods(overlay).values() for c in pod["containers"] for v in c.get("env", [])}

    configured = {name for one in manifests(overlay) if one["kind"] == "ConfigMap" for name in one["data"]}
    assert configured
    assert named | configured <= known


def test_the_migration_uses_the_image_of_the_service(overlay):
    """The job runs `alembic upgrade head` in the service's image, with the URL of the tables' owner."""
    job, deployment = migration(overlay)["spec"]["template"]["spec"], pods(overlay)[f"Deployment {NAME}"]
    (container,), (api,) = job["containers"], deployment["containers"]

    assert api["image"] == container["image"]
    assert ["alembic", "upgrade", "head"] == container["command"]
    secrets = [pod["volumes"][0]["secret"]["secretName"] for pod in (deployment, job)]
    assert [f"{NAME}-database", f"{NAME}-migration"] == secrets


def test_every_selector_selects_one_kind_of_pod(overlay):
    """Each Service, NetworkPolicy, PodDisruptionBudget and PodMonitor selects the pods of one workload."""
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in manifests(overlay)
        if one["kind"] in {"Deployment", "Job"}
    ]
    selectors = {
        "Service": lambda spec: spec["selector"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
    }
    for one in manifests(overlay):
        if one["kind"] in selectors:
            wanted = selectors[one["kind"]](one["spec"])
            assert 1 == sum(wanted.items() <= found.items() for found in labels), json.dumps(one)


def test_every_file_of_the_base_is_applied(overlay):
    """kustomization.yaml lists each manifest of the base."""
    files = {file.name for file in (FOLDER / "base").glob("*.yaml")} - {"kustomization.yaml"}
    listed = set(re.findall(r"^ +- (\S+\.yaml)$", (FOLDER / "base" / "kustomization.yaml").read_text(), re.MULTILINE))

    assert files == listed
