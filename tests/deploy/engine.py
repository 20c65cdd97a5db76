"""A Docker Engine for the tests. It does not change the machine's network, and everything it creates is removed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from app import NAME

IMAGE = f"{NAME}:local"
"""The image of the service."""

DOCKER = "/usr/bin/docker"
"""The client of Debian's package docker.io. Another client in the path may lack BuildKit."""

COMPOSE = str(Path(sys.executable).with_name("docker-compose"))


class Engine:
    """A running daemon, and its clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": f"{folder}/client",
            "DOCKER_BUILDKIT": "1",
        }

    def docker(self, *arguments: str, check: bool = True, **options: Any) -> str:
        """Run a docker command, and return its output."""
        return self.command([DOCKER, *arguments], check=check, **options)

    def compose(self, file: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run a Compose command on this file, and return its output."""
        return self.command([COMPOSE, "--file", str(file), *arguments], extra=environment or {})

    def command(
        self, command: list[str], *, check: bool = True, extra: Mapping[str, str] | None = None, seconds: float = 300
    ) -> str:
        """Run a command against this daemon.

        Raises:
            AssertionError: The command failed; the message contains its output.
        """
        done = subprocess.run(
            command,
            env={**self.environment, **(extra or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        return str(done.stdout if check else done.stdout + done.stderr)

    def inspect(self, name: str) -> dict[str, Any]:
        """The result of `docker inspect` for a container or an image."""
        return dict(json.loads(self.docker("inspect", name))[0])


@contextmanager
def engine() -> Iterator[Engine]:
    """A daemon that runs until the end of the block. Its images, containers and networks are then removed."""
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    (folder / "client").mkdir()
    (folder / "daemon.json").write_text(
        json.dumps(
            {
                "data-root": str(folder / "data"),
                "exec-root": str(folder / "exec"),
                "pidfile": str(folder / "docker.pid"),
                "hosts": [f"unix://{folder}/docker.sock"],
                "iptables": False,
                "ip6tables": False,
                "ip-forward": False,
                "ip-masq": False,
                "exec-opts": ["native.cgroupdriver=cgroupfs"],
            }
        )
    )
    bridges = _bridges()
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--config-file", str(folder / "daemon.json")],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    running = Engine(folder)
    try:
        _wait_for(running, daemon)
        yield running
    finally:
        _remove_all(running)
        _stop(daemon)
        for bridge in _bridges() - bridges:
            subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)
        _unmount(folder)
        shutil.rmtree(folder)


def _wait_for(running: Engine, daemon: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while running.docker("version", check=False).find("Server:") < 0:
        assert daemon.poll() is None, (running.folder / "log").read_text()[-4000:]
        assert time.monotonic() < end, "dockerd did not start within a minute"
        time.sleep(0.2)


def _remove_all(running: Engine) -> None:
    containers = running.docker("ps", "--all", "--quiet", check=False).split()
    if containers:
        running.docker("rm", "--force", "--volumes", *containers, check=False)
    running.docker("network", "prune", "--force", check=False)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    """Stop the daemon, and the processes it has started and not stopped."""
    started = psutil.Process(daemon.pid).children(recursive=True) if daemon.poll() is None else []
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    for process in psutil.wait_procs(started, timeout=5)[1]:
        process.kill()


def _bridges() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(("docker", "br-", "veth"))}


def _unmount(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
