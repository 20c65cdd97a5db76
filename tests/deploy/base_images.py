"""Builds replacements for the official base images from Debian's packages, because no image registry is available."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.deploy.engine import DOCKER, Engine

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

_DOCKERFILES = Path(__file__).with_name("stand_ins")


def make(engine: Engine) -> None:
    """Build every image that the Dockerfiles and Compose use as a base, under its official name."""
    _make_debian(engine)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: _build(engine, name), ("python:3.13-slim", "services")))
    for name in ("postgres:17", "redis:8", "prom/prometheus:v3.5.0"):
        _build(engine, name)


def _build(engine: Engine, name: str) -> None:
    file = _DOCKERFILES / f"{name.partition(':')[0].replace('/', '-')}.Dockerfile"
    engine.docker("build", "--quiet", "--network=host", "--tag", name, "--file", str(file), str(_DOCKERFILES))


def _make_debian(engine: Engine) -> None:
    """Build Debian 13 from this machine's package source, with this machine's CA certificates."""
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian", "Label: Debian"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    tree = engine.folder / "debian.tar"
    engine.command(
        [
            "mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates",
            f"--dpkgopt={_DOCKERFILES}/docker-slim",
            f"--customize-hook=copy-in {_DOCKERFILES}/docker-slim /etc/dpkg/dpkg.cfg.d",
            f"--customize-hook=copy-in {_DOCKERFILES}/docker-clean /etc/apt/apt.conf.d",
            f"--customize-hook=copy-in {_CERTIFICATES} /etc/ssl/certs",
            "trixie", str(tree), sites[0],
        ]
    )  # fmt: skip
    engine.command([DOCKER, "import", f"--change=ENV SSL_CERT_FILE={_CERTIFICATES}", str(tree), "debian:trixie-slim"])
