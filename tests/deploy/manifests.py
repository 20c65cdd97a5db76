"""The rendered Kubernetes manifests, and their restrictions as options of Docker."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from app import NAME
from tests.paths import ROOT

KUBECTL = str(Path(sys.executable).with_name("kubectl"))
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("development", "production")

STEPS = ("production-migration", "production-service")
"""The steps of a release."""

Manifest = dict[str, Any]


@cache
def rendered(overlay: str, folder: Path = FOLDER) -> str:
    """The manifests that `kubectl apply -k` would send."""
    done = subprocess.run(
        [KUBECTL, "kustomize", str(folder / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(overlay: str, folder: Path = FOLDER) -> list[Manifest]:
    """Every object of an overlay."""
    return list(yaml.load_all(rendered(overlay, folder), yaml.CSafeLoader))


def with_component(name: str, folder: Path, overlay: str = "production") -> Path:
    """A copy of the manifests whose overlay uses a component that it leaves out."""
    shutil.copytree(FOLDER, folder)
    file = folder / "overlays" / overlay / "kustomization.yaml"
    line = f"- ../../components/{name}\n"
    assert f"# {line}" in file.read_text()
    file.write_text(file.read_text().replace(f"# {line}", line))
    return folder


def identity(one: Manifest) -> tuple[str, str]:
    """The kind and the name of an object."""
    return one["kind"], one["metadata"]["name"]


def manifest(overlay: str, kind: str, name: str = NAME) -> Manifest:
    """The object of this kind and name."""
    (found,) = (one for one in manifests(overlay) if identity(one) == (kind, name))
    return found


def configuration(overlay: str) -> dict[str, str]:
    """The settings in the ConfigMap of the service's pods."""
    (container,) = pods(overlay)[f"Deployment {NAME}"]["containers"]
    return dict(manifest(overlay, "ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"])


def migration(overlay: str, folder: Path = FOLDER) -> Manifest:
    """The Job that migrates."""
    (found,) = (one for one in manifests(overlay, folder) if one["kind"] == "Job")
    return found


def pods(overlay: str) -> dict[str, Manifest]:
    """The pod template of each Deployment and Job."""
    return {
        f"{one['kind']} {one['metadata']['name']}": one["spec"]["template"]["spec"]
        for one in manifests(overlay)
        if one["kind"] in {"Deployment", "Job"}
    }


def docker_flags(overlay: str) -> list[str]:
    """The restrictions of the Deployment's pod and container, as options of `docker run`."""
    pod = pods(overlay)[f"Deployment {NAME}"]
    (container,) = pod["containers"]
    security, identity = container["securityContext"], pod["securityContext"]
    limits = container["resources"]["limits"]
    flags = [
        f"--user={identity['runAsUser']}:{identity['runAsGroup']}",
        f"--memory={limits['memory'].removesuffix('i').lower()}",
        f"--cpus={limits['cpu']}",
        f"--stop-timeout={pod['terminationGracePeriodSeconds']}",
        *(f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]),
    ]
    if security["readOnlyRootFilesystem"]:
        flags.append("--read-only")
    if not security["allowPrivilegeEscalation"]:
        flags.append("--security-opt=no-new-privileges")
    sizes = {v["name"]: v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v.get("emptyDir", {}).get("medium")}
    for mount in container["volumeMounts"]:
        if mount["name"] in sizes:
            size = sizes[mount["name"]].removesuffix("i").lower()
            place = mount["mountPath"]
            flags.append(f"--shm-size={size}" if place == "/dev/shm" else f"--tmpfs={place}:size={size}")
    flags += [f"--env={name}={value}" for name, value in configuration(overlay).items()]
    return flags
