"""Stands in for the official base images, which come from a registry: the same interfaces, from Debian's packages."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.deploy.engine import DOCKER, Engine

_LEFT_OUT = ("man", "doc", "locale", "info", "prometheus")

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

_SERVICES = Path(__file__).with_name("stand_ins")


def make(engine: Engine) -> None:
    """Make every image that the Dockerfiles and Compose start from, under its official name."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda make_one: make_one(engine), (_python, _debian_and_services)))


def _python(engine: Engine) -> None:
    _import(engine, "python:3.13-slim", "python3,python3-venv", "ln -s /usr/bin/python3 $1/usr/local/bin/python")


def _debian_and_services(engine: Engine) -> None:
    _import(engine, "debian:trixie-slim", "", "true")
    _import(engine, "services", "postgresql-17,redis-server,prometheus", "true")
    for file in sorted(_SERVICES.glob("*.Dockerfile")):
        name = file.name.removesuffix(".Dockerfile").replace("--", "/").replace("@", ":")
        engine.docker("build", "--quiet", "--tag", name, "--file", str(file), str(_SERVICES))


def _import(engine: Engine, name: str, packages: str, hook: str) -> None:
    """Make a file system of packages of Debian 13, from where this machine takes its own."""
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian", "Label: Debian"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    with (engine.folder / "mmdebstrap.log").open("a") as log:
        tree = subprocess.Popen(
            [
                "mmdebstrap", "--quiet", "--variant=minbase",
                f"--include={','.join(filter(None, ['ca-certificates', packages]))}",
                *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT),
                "--dpkgopt=path-exclude=/usr/lib/llvm-*",
                "--dpkgopt=path-exclude=/usr/lib/postgresql/*/lib/bitcode/*",
                f"--customize-hook=copy-in {_CERTIFICATES} /etc/ssl/certs",
                f"--customize-hook={hook}",
                '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin',
                "trixie", "-", sites[0],
            ],
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        imported = subprocess.run(
            [DOCKER, "import", f"--change=ENV SSL_CERT_FILE={_CERTIFICATES}", "-", name],
            stdin=tree.stdout, env=engine.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert tree.wait() == 0, (engine.folder / "mmdebstrap.log").read_text()[-4000:]
    assert imported.returncode == 0, imported.stderr
