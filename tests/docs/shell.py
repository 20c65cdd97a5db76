"""Runs the commands of a document in a copy of the project."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.embedded_postgres.programs import account, find_binaries, identity
from tests.docs.documents import Block
from tests.paths import ROOT
from tests.processes.server import eventually, free_port

_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "images")

STARTED = "make run"
"""The command that starts a server. The server is stopped at the end of the document."""

SERVED_AT = "127.0.0.1:8000"
"""The address of the service in the documents. The tests use another port."""

REPEATED = "make test"
"""The command that would run this test again: it is run with `--dry-run`."""


class Reader:
    """A shell in a copy of the project."""

    def __init__(self, folder: Path, environment: Mapping[str, str], identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity = identity
        self.port = free_port()
        binaries = f"{folder}/.venv/bin:{find_binaries()}:{os.environ['PATH']}"
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        self.environment = kept | {"PATH": binaries, "PORT": str(self.port), "LOG_FORMAT": "json"} | dict(environment)
        self._served: psutil.Popen | None = None

    def run(self, block: Block) -> str:
        """Run the commands of a block and return their output.

        Raises:
            AssertionError: A command fails.
        """
        return self.execute("\n".join(self._runnable(block)), name=str(block))

    def execute(self, script: str, *, name: str) -> str:
        """Run a script with the shell functions that earlier scripts have defined.

        Raises:
            AssertionError: The script fails.
        """
        whole = f"[ ! -e .functions ] || source ./.functions\n{script}\ndeclare -f > .functions"
        done: subprocess.CompletedProcess[str] = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", whole],
            cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=240, check=False, **self._identity,
        )  # fmt: skip
        assert done.returncode == 0, f"{name} ends with {done.returncode}:\n{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _runnable(self, block: Block) -> Iterator[str]:
        for line in block.text.splitlines():
            command = line.partition(" #")[0].rstrip()
            if command == STARTED:
                self._serve()
            elif command == REPEATED:
                yield f"{command} --dry-run"
            else:
                yield line.replace(SERVED_AT, f"127.0.0.1:{self.port}")

    def _serve(self) -> None:
        environment = {name: value for name, value in self.environment.items() if "DATABASE_URL" not in name}
        with (self.folder / "served.log").open("wb") as log:
            self._served = psutil.Popen(
                ["make", "run"], cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

        def look() -> bool:
            assert self._served is not None
            assert self._served.poll() is None, (self.folder / "served.log").read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        eventually(look, seconds=60, what="the server is ready", every=0.2)

    def close(self) -> None:
        """Stop the server that `make run` has started, and its PostgreSQL."""
        if self._served is None:
            return
        children = self._served.children(recursive=True)
        os.killpg(self._served.pid, signal.SIGTERM)
        self._served.wait(60)
        _, left = psutil.wait_procs(children, timeout=20)
        for child in left:
            child.kill()
        assert not left, left


@contextmanager
def reader(environment: Mapping[str, str], *, as_postgresql: bool = False) -> Iterator[Reader]:
    """A shell in a new copy of the project, with the environment of the tests as its `.venv`.

    Args:
        environment: The variables of the commands.
        as_postgresql: The commands run as the user that PostgreSQL runs as.
    """
    folder = Path(tempfile.mkdtemp(prefix="reader-"))
    folder.chmod(0o755)  # PostgreSQL's user must be able to enter it
    try:
        shutil.copytree(ROOT, folder, ignore=_LEFT_BEHIND, dirs_exist_ok=True)
        shutil.copytree(ROOT / ".ci", folder / ".ci")
        virtual = folder / ".venv"
        virtual.mkdir()
        for part in ("bin", "lib", "pyvenv.cfg"):
            (virtual / part).symlink_to(Path(sys.prefix, part))
        (virtual / "installed").touch()
        if as_postgresql and (user := account()):
            os.chown(folder, user.pw_uid, user.pw_gid)
        shell = Reader(folder, environment, identity() if as_postgresql else {})
        try:
            yield shell
        finally:
            shell.close()
    finally:
        shutil.rmtree(folder)
