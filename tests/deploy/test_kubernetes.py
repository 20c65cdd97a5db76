"""The manifests are valid, restricted, and their numbers agree with each other."""

import configparser
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.connection_budget import worker_share
from app.settings import Settings
from tests.cluster import ROLES
from tests.deploy.manifests import FOLDER, OVERLAYS, configuration, manifest, manifests, pods, rendered
from tests.paths import ROOT

OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes, as deploy/README.md names them."""

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


def quantity(text: str) -> float:
    """A number of Kubernetes, in units or bytes."""
    number = str(text).rstrip("mMGi")
    return float(number) * {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[str(text).removeprefix(number)]


def settings(overlay):
    """The settings as a pod of the overlay has them."""
    workers = math.ceil(quantity(pods(overlay)["Deployment items-api"]["containers"][0]["resources"]["limits"]["cpu"]))
    values = {name.lower(): value for name, value in configuration(overlay).items() if not name.endswith("_FILE")}
    return Settings.load(_env_file=None, database_url="postgresql://a@b/c", web_concurrency=workers, **values)


def preparation(pod):
    """How long a pod goes on serving after it was told to leave, in seconds."""
    command, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert "sleep" == command
    return float(seconds)


def test_they_fit_the_schemas(overlay, tmp_path):
    """Every object fits the schema of the oldest and the newest version, with no unknown field."""
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered(overlay))
    done = subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "--strict", "-k", OLDEST, "-k", NEWEST, file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr
    checked = {one["kind"] for one in manifests(overlay)} - {"PodMonitor"}  # not one of Kubernetes' own
    assert {kind.lower() for kind in checked} == set(
        re.findall(r"passed for resource (\w+)/", done.stdout + done.stderr)
    )


def test_pods_meet_the_restricted_standard(overlay):
    """Pod Security "restricted", which the namespace enforces, and a root file system that cannot be written."""
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


def test_every_container_has_its_share(overlay):
    """Requests and limits of CPU and memory; what lies in memory counts against the limit."""
    for name, pod in pods(overlay).items():
        for container in pod["containers"]:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            for resource in ("cpu", "memory"):
                assert quantity(requests[resource]) <= quantity(limits[resource]), name
            in_memory = [quantity(volume["emptyDir"]["sizeLimit"]) for volume in pod["volumes"] if "emptyDir" in volume]
            assert sum(in_memory) <= quantity(limits["memory"]) / 2


def test_no_image_is_called_latest(overlay):
    """Each has a tag that says which one it is."""
    images = [container["image"] for pod in pods(overlay).values() for container in pod["containers"]]

    assert all(re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", image) for image in images), images
    assert 1 == len({image for image in images if image.startswith("items-api:")})


def test_life_and_readiness_are_two_questions(overlay):
    """What restarts a pod asks nobody; what sends it requests asks the database, at the port for operators."""
    (container,) = pods(overlay)["Deployment items-api"]["containers"]
    asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert {"path": "/health", "port": "ops"} == asked["startup"] == asked["liveness"]
    assert {"path": "/health/ready", "port": "ops"} == asked["readiness"]
    assert {"http": settings(overlay).port, "ops": settings(overlay).ops_port} == ports


def test_there_is_time_to_leave(overlay):
    """The pause of preStop + GRACEFUL_SECONDS + 5 fits the pod's grace period, and Gunicorn's own end fits it too."""
    pod = pods(overlay)["Deployment items-api"]
    graceful = settings(overlay).graceful_seconds

    assert preparation(pod) + graceful + 5 <= pod["terminationGracePeriodSeconds"]
    # A pod is out of every proxy's list before it stops to serve.
    assert preparation(pod) >= 5


def test_a_roll_never_lowers_the_number_of_pods(overlay):
    """One comes before one goes, and a drained node takes one at a time."""
    deployment = manifest(overlay, "Deployment")

    assert {"maxSurge": 1, "maxUnavailable": 0} == deployment["spec"]["strategy"]["rollingUpdate"]
    assert "replicas" not in deployment["spec"]
    budget = manifest(overlay, "PodDisruptionBudget")["spec"]
    assert 1 == budget["maxUnavailable"]
    assert deployment["spec"]["selector"] == budget["selector"]


def test_the_most_pods_find_their_connections(overlay):
    """As many pods as there can be, and the one that replaces another, find DATABASE_CONNECTIONS each."""
    used = settings(overlay)
    most = manifest(overlay, "HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    instances = most + manifest(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    wanted = instances * used.database_connections
    (limit,) = map(int, re.findall(r"ALTER ROLE items_app .*CONNECTION LIMIT (\d+)", ROLES.read_text()))

    assert instances == used.instances
    assert 1 <= worker_share(budget=used.database_connections, workers=used.web_concurrency)
    if "none" == used.database_pooler:
        assert wanted <= limit
        return
    ini = configparser.ConfigParser(comment_prefixes=(";", "%"))
    ini.read(ROOT / "deploy" / "pgbouncer" / "pgbouncer.ini")
    pooler = ini["pgbouncer"]
    replicas = manifest(overlay, "Deployment", "items-pgbouncer")["spec"]
    # Either of them must bear all clients while the other one is away.
    assert wanted <= int(pooler["max_client_conn"])
    most_poolers = replicas["replicas"] + replicas["strategy"]["rollingUpdate"]["maxSurge"]
    assert most_poolers * int(pooler["max_db_connections"]) <= limit
    assert int(pooler["default_pool_size"]) <= int(pooler["max_db_connections"])
    if "pgbouncer-prepared" == used.database_pooler:
        assert int(pooler["max_prepared_statements"]) >= 100


def test_workers_follow_the_limit(overlay):
    """WEB_CONCURRENCY is the CPU limit, rounded up, and each pod counts in shared memory of its own."""
    pod = pods(overlay)["Deployment items-api"]
    (container,) = pod["containers"]
    (workers,) = (variable for variable in container["env"] if variable["name"] == "WEB_CONCURRENCY")
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm")
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])

    assert {"containerName": "api", "resource": "limits.cpu", "divisor": "1"} == workers["valueFrom"][
        "resourceFieldRef"
    ]
    assert "Memory" == volume["emptyDir"]["medium"]
    assert quantity(volume["emptyDir"]["sizeLimit"]) >= 32 * 2**20


def test_secrets_are_files(overlay):
    """No secret stands in a manifest or in an environment; each is a file that the pod's group may read."""
    assert not [one for one in manifests(overlay) if one["kind"] == "Secret"]
    assert not re.search(r"secretKeyRef|postgresql://|redis://|password", rendered(overlay), re.IGNORECASE)
    for pod in pods(overlay).values():
        assert {0o440} == {volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume}


def test_every_setting_has_a_name_that_is_read(overlay):
    """A misspelt variable would be ignored in silence."""
    known = {name.upper() for name in Settings.model_fields}
    named = {v["name"] for pod in pods(overlay).values() for c in pod["containers"] for v in c.get("env", [])}

    assert {*named, *configuration(overlay)} <= known


def test_the_migration_is_the_image_of_the_service(overlay):
    """It runs alembic as the owner of the tables, once, at PostgreSQL itself."""
    (container,) = pods(overlay)["Job items-api-migration"]["containers"]
    (api,) = pods(overlay)["Deployment items-api"]["containers"]

    assert api["image"] == container["image"]
    assert ["alembic", "upgrade", "head"] == container["command"]
    secrets = {
        name: pod["volumes"][0]["secret"]["secretName"] for name, pod in pods(overlay).items() if "items-api" in name
    }
    assert {"Deployment items-api": "items-api-database", "Job items-api-migration": "items-api-migration"} == secrets


def test_everything_is_selected_by_labels_that_exist(overlay):
    """A Service, a policy, a budget or a monitor that selects nothing would be silent about it."""
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


def test_no_file_is_left_out(overlay):
    """Each manifest of the base is part of what is applied."""
    files = {file.name for file in (FOLDER / "base").glob("*.yaml")} - {"kustomization.yaml"}
    listed = set(re.findall(r"^ +- (\S+\.yaml)$", (FOLDER / "base" / "kustomization.yaml").read_text(), re.MULTILINE))

    assert files == listed
