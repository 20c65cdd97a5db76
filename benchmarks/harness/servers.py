"""Starts a server, reads the CPU time of its workers, and ends it."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.processes.server import free_port

ROOT = Path(__file__).resolve().parents[2]

_START_SECONDS = 120.0
_UNLIMITED = "1000000000/minute"


@dataclass(kw_only=True)
class Server:
    """A server that runs until the end of a `with` block. Its output is written to a file."""

    name: str
    command: list[str]
    """`{port}` is replaced by the port."""

    environment: Mapping[str, str]
    is_forking: bool = False
    """Whether the workers are child processes of the started process."""

    folder: Path = ROOT
    """Where it is started."""

    is_piped: bool = False
    """Whether its output goes through a pipe that another process reads, as that of a container does."""

    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        self._output = tempfile.TemporaryFile()
        self._reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=self._output) if self.is_piped else None
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [argument.format(port=self.port) for argument in self.command],
            cwd=self.folder,
            env=kept | {"PORT": str(self.port), **self.environment},
            stdout=self._reader.stdin if self._reader else self._output,
            stderr=subprocess.STDOUT,
        )
        self._wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            for worker in self.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
            self.process.kill()
            self.process.wait()
        if self._reader:
            self._reader.communicate()
        self._output.close()

    def workers(self) -> list[psutil.Process]:
        """The processes that serve requests."""
        process = psutil.Process(self.process.pid)
        return process.children() if self.is_forking else [process]

    def processes(self) -> list[psutil.Process]:
        """The started process and all of its children."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """The user and system CPU time of all threads of the workers so far."""
        times = [worker.cpu_times() for worker in self.workers()]
        return sum(time.user + time.system for time in times)

    def output(self) -> str:
        """What it has written so far."""
        # Not `seek`: the server writes at the same position.
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def _wait_until_ready(self) -> None:
        while time.monotonic() - self.started < _START_SECONDS and self.process.poll() is None:
            if self._answers():
                self.ready_seconds = time.monotonic() - self.started
                return
            time.sleep(0.02)
        self.process.kill()
        raise SystemExit(f"{self.name} did not start:\n{self.output()[-4000:]}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url("/items/1")):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code < HTTPStatus.INTERNAL_SERVER_ERROR
        except OSError:
            return False


def uvicorn(
    name: str,
    application: str,
    database_url: str,
    *,
    python: str = sys.executable,
    folder: Path = ROOT,
    options: Sequence[str] = ("--no-access-log", "--no-server-header", "--log-level", "warning"),
    **environment: str,
) -> Server:
    """An application under plain Uvicorn, with the same event loop and parser as the service."""
    return Server(
        name=name,
        command=[
            *(python, "-m", "uvicorn", application, "--port", "{port}", "--loop", "uvloop", "--http", "httptools"),
            *options,
        ],
        # Uvicorn reads WEB_CONCURRENCY as well.
        environment={"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1", **environment},
        folder=folder,
    )


def service(
    name: str, database_url: str, *, workers: int = 1, python: str = sys.executable, **environment: str
) -> Server:
    """This service as in production, with all controls on and rate limits that the load does not reach."""
    settings = {
        "DATABASE_URL": database_url,
        "WEB_CONCURRENCY": str(workers),
        "HOST": "127.0.0.1",
        "LOG_LEVEL": "info",
        "LOG_FORMAT": "json",
        "RATE_LIMIT_READ": _UNLIMITED,
        "RATE_LIMIT_WRITE": _UNLIMITED,
    }
    command = [python, "-m", "gunicorn"]
    return Server(name=name, command=command, environment=settings | environment, is_forking=True)
