"""Starts the real server, as an operator does, and finds and ends its processes."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psutil

from tests.paths import ROOT

T = TypeVar("T")

SAMPLES_APP = "tests.sample.app:create_app()"
"""This service with the samples beside its own resources."""

PLAIN = "tests.processes.apps:plain()"
"""An application that answers without a database."""


def free_port() -> int:
    """A port of the loopback interface at which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(read: Callable[[], T], *, seconds: float, what: str, every: float = 0.05) -> T:
    """The first true value that `read` returns.

    Raises:
        AssertionError: There was none within `seconds`. The message says `what` was expected.
    """
    end = time.monotonic() + seconds
    while not (value := read()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(every)
    return value


def _sockets(pid: int) -> set[int]:
    """The inodes of the process's sockets."""
    inodes = set()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := str(file.readlink())).startswith("socket:["):
                    inodes.add(int(target[8:-1]))
    return inodes


def _polled(pid: int) -> set[int]:
    """The inodes of what the process's event loop waits for, as the kernel lists them for an epoll descriptor."""
    inodes = set()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                inodes |= {int(inode, 16) for inode in re.findall(r"^tfd:.* ino:(\w+)", file.read_text(), re.MULTILINE)}
    return inodes


class Server:
    """A Gunicorn master and its workers, from `with` to the end of the block."""

    def __init__(
        self,
        *,
        app: str | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        folder: Path = ROOT,
    ) -> None:
        """Describe a server of this service, or of another application.

        Args:
            app: The application to serve instead of this service.
            environment: Settings besides PORT. Without DATABASE_URL there is no database at its address.
            arguments: The arguments of `gunicorn` before the application.
            folder: The working directory.
        """
        self.port = free_port()
        self.folder = folder
        self.command = [str(Path(sys.executable).with_name("gunicorn")), *arguments, *([app] if app else [])]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        self.environment = {
            **inherited,
            **coverage,
            "PORT": str(self.port),
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "LOG_FORMAT": "json",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        }
        self.stdout: int | None = None
        """A descriptor for the output. By default it goes to a file that `output` reads."""
        self.process: subprocess.Popen[bytes]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._children: dict[int, psutil.Process] = {}
        self._listeners: set[int] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.output()[-8_000:])  # noqa: T201
        self.kill()
        self._output.close()

    def started_by(self, *command: str) -> Self:
        """Start it through a command that prepares the environment and then runs its arguments."""
        self.command = [*command, *self.command]
        return self

    def start(self) -> None:
        """Start the master, and do not wait for it."""
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.folder,
            stdout=self._output if self.stdout is None else self.stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def serving(self, *, workers: int = 1, seconds: float = 60) -> Self:
        """Wait until this many workers accept connections."""

        def read() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.output()}"
            return len(self.serving_workers()) >= workers

        eventually(read, seconds=seconds, what=f"{workers} workers of {self.command}")
        return self

    def serving_workers(self) -> list[int]:
        """The process ids of the workers that accept connections: their event loop waits for one of the listeners.

        The listeners are the only sockets of the master, which closes its own when it stops, before its workers do.
        """
        self._listeners |= _sockets(self.process.pid)
        return [pid for pid in self.workers() if self._listeners & _polled(pid)]

    def workers(self) -> list[int]:
        """The process ids of the living workers, oldest first."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        living = []
        for child in children:
            self._children[child.pid] = child
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    living.append((child.create_time(), child.pid))
        return [pid for _, pid in sorted(living)]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def kill_worker(self, *, seconds: float = 10) -> None:
        """Kill the oldest worker, and wait until another one serves in its place."""
        serving = self.serving_workers()
        os.kill(serving[0], signal.SIGKILL)

        def read() -> bool:
            # A killed process is still listed for a moment.
            return len(now := self.serving_workers()) == len(serving) and serving[0] not in now

        eventually(read, seconds=seconds, what=f"a replacement of worker {serving[0]}")

    def reload(self, *, seconds: float = 30) -> None:
        """Send SIGHUP and wait until the same number of workers serve, all of them new."""
        count, old = len(self.serving_workers()), set(self.workers())
        self.send(signal.SIGHUP)

        def read() -> bool:
            workers = set(self.workers())
            return len(workers) == len(self.serving_workers()) == count and old.isdisjoint(workers)

        eventually(read, seconds=seconds, what=f"{count} workers instead of {sorted(old)}")

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 40) -> int:
        """Send a signal, wait until the server has ended, and return its exit code."""
        self.workers()
        self.send(number)
        return self.process.wait(seconds)

    def wait(self, *, seconds: float = 20) -> int:
        """Wait until the server ends by itself, and return its exit code."""
        return self.process.wait(seconds)

    def output(self) -> str:
        """All output so far."""
        self._output.flush()
        return os.pread(self._output.fileno(), 50_000_000, 0).decode(errors="replace")

    def kill(self) -> None:
        """Kill all processes of this server that still run."""
        self.workers()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for child in self._children.values():
            # psutil compares the start time too, so a new process with the same id is not killed.
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def service(url: str, *, workers: int = 1, **settings: str) -> Server:
    """This service and the samples with this database, without rate limits unless the settings have some."""
    limited = any(name.startswith("RATE_LIMIT_") for name in settings)
    environment = {"DATABASE_URL": url, "WEB_CONCURRENCY": str(workers), "RATE_LIMIT_ENABLED": str(limited).lower()}
    return Server(app=SAMPLES_APP, environment=environment | settings)


def without_coverage(server: Server) -> Server:
    """The same server without measuring coverage, which slows its code but not what the code waits for."""
    server.environment = {name: value for name, value in server.environment.items() if "COVERAGE_" not in name}
    return server
