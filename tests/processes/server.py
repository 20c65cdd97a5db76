"""Starts the real server, as an operator does, and looks after its processes."""

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

PLAIN = "tests.processes.apps:plain()"
"""An application that answers without a database."""


def free_port() -> int:
    """A port of the loopback interface that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(look: Callable[[], T], *, seconds: float, what: str, every: float = 0.05) -> T:
    """The first true value that `look` returns, within the time.

    Raises:
        AssertionError: There was none in time; it says what was waited for.
    """
    end = time.monotonic() + seconds
    while not (value := look()):
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
        """Describe a server; without an application it serves the real one.

        Args:
            app: What to serve instead of this service.
            environment: Settings beside PORT. DATABASE_URL leads nowhere unless it is set.
            arguments: What follows `gunicorn` on the command line.
            folder: Where it is started.
        """
        self.port = free_port()
        self.folder = folder
        self.command = [str(Path(sys.executable).with_name("gunicorn")), *arguments, *([app] if app else [])]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        self.environment = {
            **kept,
            **measured,
            "PORT": str(self.port),
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "LOG_FORMAT": "json",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        }
        self.printing_to: int | None = None
        """A descriptor to print to, instead of where `output` finds it."""
        self.process: subprocess.Popen[bytes]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._children: dict[int, psutil.Process] = {}

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

    def inside(self, *command: str) -> Self:
        """Have it started by a command that prepares its surroundings, and then runs what follows it."""
        self.command = [*command, *self.command]
        return self

    def start(self) -> None:
        """Start the processes, and do not wait for them."""
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.folder,
            stdout=self._output if self.printing_to is None else self.printing_to,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def serving(self, *, workers: int = 1, seconds: float = 20) -> Self:
        """Wait until so many workers accept connections."""

        def look() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.output()}"
            return len(self.serving_workers()) >= workers

        eventually(look, seconds=seconds, what=f"{workers} workers of {self.command}")
        return self

    def serving_workers(self) -> list[int]:
        """The process ids of the workers that accept connections: their event loop waits for one of the listeners.

        The listeners are the only sockets of the master.
        """
        listeners = _sockets(self.process.pid)
        return [pid for pid in self.workers() if listeners & _polled(pid)]

    def workers(self) -> list[int]:
        """The process ids of the workers that live, oldest first."""
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
        """Kill the oldest worker, and wait until as many serve as before without it."""
        serving = self.serving_workers()
        os.kill(serving[0], signal.SIGKILL)

        def look() -> bool:
            # A process that was killed still shows for a moment.
            return len(now := self.serving_workers()) == len(serving) and serving[0] not in now

        eventually(look, seconds=seconds, what=f"another worker in the place of {serving[0]}")

    def reload(self, *, seconds: float = 30) -> None:
        """Send SIGHUP and wait until as many workers serve as before, all of them new."""
        count, old = len(self.serving_workers()), set(self.workers())
        self.send(signal.SIGHUP)

        def look() -> bool:
            workers = set(self.workers())
            return len(workers) == len(self.serving_workers()) == count and old.isdisjoint(workers)

        eventually(look, seconds=seconds, what=f"{count} workers instead of {sorted(old)}")

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 40) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.workers()
        self.send(number)
        return self.process.wait(seconds)

    def wait(self, *, seconds: float = 20) -> int:
        """Wait until the server has ended by itself, and return the exit code."""
        return self.process.wait(seconds)

    def output(self) -> str:
        """All that was printed so far."""
        self._output.flush()
        return os.pread(self._output.fileno(), 50_000_000, 0).decode(errors="replace")

    def kill(self) -> None:
        """End whatever still runs of this server."""
        self.workers()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for child in self._children.values():
            # psutil compares the start time as well, so a new process with an old id is safe.
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def service(url: str, *, workers: int = 1, **settings: str) -> Server:
    """The real service with this database, its clients unlimited unless the settings say otherwise."""
    limited = any(name.startswith("RATE_LIMIT_") for name in settings)
    environment = {"DATABASE_URL": url, "WEB_CONCURRENCY": str(workers), "RATE_LIMIT_ENABLED": str(limited).lower()}
    return Server(environment=environment | settings)


def untraced(server: Server) -> Server:
    """The same server without its coverage measured: tracing slows its code, and not what the code waits for."""
    server.environment = {name: value for name, value in server.environment.items() if "COVERAGE_" not in name}
    return server
