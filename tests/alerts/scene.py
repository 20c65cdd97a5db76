"""One fault and what belongs to it: a server, normal requests, and the moment at which the fault begins."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import as_role
from tests.processes.history import create
from tests.processes.load import Request, load
from tests.processes.server import Server, free_port, service

_STARTING = threading.Semaphore(3)
"""So many servers start at the same time."""

SAMPLES = 20
"""The number of samples that requests read."""


@dataclass(kw_only=True)
class Timing:
    """When faults begin and end: all of them at the same time, some time after Prometheus has begun to watch."""

    all_serve: threading.Barrier
    faults_begin: threading.Event = field(default_factory=threading.Event)
    all_ends: float = float("inf")
    """By the monotonic clock."""
    watched_since: float = 0.0
    """Unix time of the first scrape."""


@dataclass(kw_only=True)
class Scene:
    """What the function that makes a fault may use."""

    name: str
    owner_url: str
    """A migrated database of this fault alone, as its owner may use it."""
    folder: Path
    rate: float
    """Normal requests a second."""
    timing: Timing
    port: int = field(default_factory=free_port)
    """The port of the metrics."""
    began: float = float("nan")
    """Unix time."""
    failure: Exception | None = None
    """Why the fault could not be made."""

    @property
    def url(self) -> str:
        """The same database as the service's own role, which may only read and write rows."""
        return as_role(self.owner_url, "items_app")

    @contextmanager
    def serving(
        self,
        url: str | None = None,
        *,
        workers: int = 1,
        clients: int = 10,
        request: Callable[[int], Request] | None = None,
        prepare: Callable[[Server], object] = lambda _: None,
        **settings: str,
    ) -> Iterator[Server]:
        """A server with default settings that receives requests, from when all servers serve.

        Args:
            url: The address of the database, if it is another one.
            workers: The number of workers.
            clients: The number of connections for them.
            request: Makes the request of a number, by default `mixed`.
            prepare: Called with the server before it starts.
            settings: Settings that differ from their defaults.
        """
        fixed = {"OPS_PORT": str(self.port), "RATE_LIMIT_ENABLED": "true"}
        server = service(url or self.url, workers=workers, **fixed | settings)
        prepare(server)
        with ExitStack() as stack:
            with _STARTING:
                stack.enter_context(server)
                server.serving(workers=workers, seconds=300)
            stack.enter_context(
                load(server.port, rate=self.rate, seconds=7200, kept=clients, fresh=0, request=request or mixed)
            )
            self.timing.all_serve.wait()
            yield server

    def begin(self) -> None:
        """Wait until the faults begin."""
        self.timing.faults_begin.wait()
        self.began = time.time()

    def hold(self) -> None:
        """Keep the fault until the measurement ends."""
        for _ in self.every(5):
            pass

    def every(self, seconds: float) -> Iterator[None]:
        """Repeat the body of the loop at this interval until the measurement ends."""
        while (left := self.timing.all_ends - time.monotonic()) > 0:
            yield
            time.sleep(min(seconds, left))


def mixed(number: int) -> Request:
    """A creation, a read, or a list, from one of 50 clients behind a proxy."""
    if number % 3 == 0:
        return from_client(number, creation(number))
    if number % 3 == 1:
        return from_client(number, read(number))
    return from_client(number, Request(target="/samples?per_page=5"))


def read(number: int) -> Request:
    """The read of a sample."""
    return Request(target=f"/samples/{number % SAMPLES + 1}")


def creation(number: int) -> Request:
    """The creation of a sample, every second one with a key."""
    return create(number, key=f"key-{number}" if number % 2 else None)


def from_client(number: int, request: Request) -> Request:
    """The request, from one of 50 clients behind a proxy."""
    address = ("X-Forwarded-For", f"192.0.2.{number % 50}")
    return Request(method=request.method, target=request.target, headers=(*request.headers, address), body=request.body)
