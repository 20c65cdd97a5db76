"""The Dockerfiles and the Compose file, checked with the tools that use them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app import NAME
from app.settings import Settings
from tests.deploy.engine import COMPOSE
from tests.paths import ROOT

COMPOSE_FILE = ROOT / "deploy" / "compose" / "compose.yaml"

BUNDLE = [
    file
    for place in (ROOT / "deploy", ROOT / "Dockerfile", ROOT / ".dockerignore")
    for file in ([place] if place.is_file() else place.rglob("*"))
    if file.is_file()
]


def services():
    """The services of the stack, as parsed by Compose."""
    done = subprocess.run(
        [COMPOSE, "--file", COMPOSE_FILE, "config"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert not done.stderr, done.stderr
    return yaml.safe_load(done.stdout)["services"]


@pytest.mark.parametrize("file", ["Dockerfile", "deploy/pgbouncer/Dockerfile"])
def test_hadolint_finds_nothing(file):
    """There is no finding for the Dockerfile, nor for the shell commands in it."""
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / file], capture_output=True, text=True, check=False
    )

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_images_have_a_version_and_no_registry():
    """Image names have no registry host, so a mirror can be used without a change, and a tag other than latest."""
    froms = [
        line.split()[1]
        for file in BUNDLE
        if file.name == "Dockerfile"
        for line in file.read_text().splitlines()
        if line.startswith("FROM ")
    ]
    images = {*froms, *(service["image"] for service in services().values())}

    for image in images:
        assert re.fullmatch(r"[a-z-]+(/[a-z-]+)?:(?!latest)[\w.-]+", image), image


def test_every_service_is_restricted():
    """Read-only root file system, no capabilities, no new privileges, limited resources, loopback ports only."""
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert ["ALL"] == service["cap_drop"]
        assert "cap_add" not in service
        assert ["no-new-privileges:true"] == service["security_opt"]
        assert service["pids_limit"]
        assert "mem_limit" in service or service["network_mode"] == "none"
        assert service["logging"]["options"]["max-size"]
        assert all("127.0.0.1" == port["host_ip"] for port in service.get("ports", []))
        assert "privileged" not in service


def test_every_service_has_a_health_check():
    """A service that keeps running has a health check, and dependent services wait for it."""
    found = services()
    once = {name for name, service in found.items() if service["restart"] == "no"}
    for name, service in found.items():
        assert name in once or "healthcheck" in service or "build" in service, name
        for other, condition in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in once else "service_healthy"
            assert expected == condition["condition"], (name, other)


def test_secrets_are_files():
    """No environment contains a secret. Each secret is a file in a read-only volume of its service alone."""
    known = {name.upper() for name in Settings.model_fields}
    for name, service in services().items():
        for variable, value in (service.get("environment") or {}).items():
            assert not re.search(r"PASSWORD|SECRET|_URL|_URI", variable) or value.startswith("/run/secrets/"), variable
            assert service["image"].split(":")[0] != NAME or variable in known
        volumes = [v["source"] for v in service.get("volumes", []) if v["source"].endswith("-secrets")]
        assert name == "secrets" or volumes in ([], [f"{name}-secrets"])
        assert name == "secrets" or all(
            v.get("read_only") for v in service.get("volumes", []) if v["source"] in volumes
        )


def test_the_stop_grace_period_is_long_enough():
    """Docker waits GRACEFUL_SECONDS and at least five seconds more before it kills the service."""
    seconds = services()["api"]["stop_grace_period"]

    assert "35s" == seconds
    assert Settings.model_fields["graceful_seconds"].default + 5 <= 35
