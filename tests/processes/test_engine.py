import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tests.cluster import create_samples, execute, migrate
from tests.paths import ROOT
from tests.patroni.engine import PROGRAMS, Engine, engine
from tests.patroni.node import Node
from tests.processes.history import History
from tests.processes.load import Report, load
from tests.processes.server import Server, eventually, service
from tests.processes.test_faults_database import after, assert_all_stored, counted, succeeded
from tests.processes.watch import counting_backends, polling, print_figures

pytestmark = [pytest.mark.slow, pytest.mark.needs(*PROGRAMS)]

CONNECTIONS = 20
"""DATABASE_CONNECTIONS of each service."""


@pytest.fixture(scope="module")
def running() -> Iterator[Engine]:
    """Three servers for all tests of this file. Each test leaves them whole. New databases are migrated."""
    with engine() as started:
        migrate(started.balanced_url("template1"))
        create_samples(started.balanced_url("template1"))
        yield started


@dataclass(slots=True, kw_only=True)
class Way:
    """A service that reaches the servers in one way, and the writes in its own database."""

    name: str
    server: Server
    history: History
    report: Report = field(default_factory=Report)

    def assert_writes_go_on(self, began: float, led: float) -> None:
        """Print for how long no write succeeded. All requests succeed soon after a server leads."""
        writes = [e for e in self.report.results if e.request.method != "GET" and succeeded(e)]
        ends = [began, *sorted(e.started + e.seconds for e in writes if e.started + e.seconds > began)]
        without, resumed = max((later - earlier, later) for earlier, later in pairwise(ends))
        print(self.name, end=" ")  # noqa: T201
        print_figures(
            without_a_write_seconds=without,
            leader_seconds=led - began,
            write_after_leader_seconds=max(0.0, resumed - led),
            **counted(self.report),
        )
        late = after(self.report, max(resumed, led) + 2)
        assert len(late) > 20
        assert all(map(succeeded, late))
        assert set(self.report.statuses) <= {200, 201, 503, 504}
        assert_all_stored(self.history, self.report, at_least=200)


def wait_for_writes(ways: list[Way], led: float) -> None:
    """Wait until each service has stored something since a server leads, and a while longer."""

    def written(way: Way) -> bool:
        results = way.report.results[-500:]
        return any(e.started > led and e.request.method != "GET" and succeeded(e) for e in results)

    eventually(lambda: all(map(written, ways)), seconds=8, what="writes by both ways")
    time.sleep(4)


@contextmanager
def under_load(engine: Engine) -> Iterator[list[Way]]:
    """Load on two services at once: one has the URL of all servers, one that of HAProxy. No worker restarts."""
    with ExitStack() as services:
        ways = []
        for name, url in {"list": engine.url, "balancer": engine.balanced_url}.items():
            database = f"{name}_{time.monotonic_ns()}"
            # By HAProxy: a standby may lack the new database for a moment, and then the driver tries no other host.
            execute(engine.balanced_url("postgres"), f"CREATE DATABASE {database}")
            server = services.enter_context(service(url(database), workers=2, DATABASE_CONNECTIONS=str(CONNECTIONS)))
            ways.append(Way(name=name, server=server, history=History(engine.balanced_url(database))))
        for way in ways:
            way.server.serving(workers=2)
        workers = [way.server.workers() for way in ways]
        with ExitStack() as loads:
            for way in ways:
                way.report = loads.enter_context(load(way.server.port, rate=100, request=way.history.request))
            time.sleep(2)
            yield ways
        assert workers == [way.server.workers() for way in ways]


@contextmanager
def switched_over(engine: Engine, leader: Node) -> Iterator[None]:
    """An operator has the synchronous standby lead."""
    candidate = engine.synchronous_standby().name
    leader.control("switchover", "--force", "--leader", leader.name, "--candidate", candidate)
    yield


@contextmanager
def killed(_: Engine, node: Node) -> Iterator[None]:
    """A server fails, and is repaired at the end."""
    node.kill()
    yield
    node.start()


@contextmanager
def frozen(_: Engine, node: Node) -> Iterator[None]:
    """A server stands still, and goes on at the end: a leader has no time to learn that it leads no more."""
    with node.frozen():
        yield


def alembic(url: str) -> str:
    """What `alembic current` prints with this URL."""
    environment = os.environ | {"MIGRATION_DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", "current"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("fault", [switched_over, killed, frozen])
def test_writes_go_on_with_the_new_leader(running, fault):
    """By a list of hosts and by HAProxy: no acknowledged write is lost, no answer is 500, and no worker restarts.

    `alembic` says that no server takes writes, and later finds the one that does.
    """
    leader = running.leader
    others = [node for node in running.nodes if node is not leader]
    with under_load(running) as ways:
        began = time.monotonic()
        with polling(lambda: any(node.leads() for node in others) and time.monotonic(), every=0.02) as led:
            with fault(running, leader):
                refused = alembic(running.url("postgres"))
                assert any(led) or "Error: Migrations need a server that takes writes" in refused
                eventually(lambda: any(led), seconds=60, what="a new leader")
                wait_for_writes(ways, next(filter(None, led)))
                assert "head" in alembic(running.url("template1"))
            time.sleep(2)
    running.wait_until_whole()
    for way in ways:
        way.assert_writes_go_on(began, next(filter(None, led)))


def test_reads_succeed_and_sessions_stay_within_their_budget_while_commits_wait(running):
    """The synchronous standby is frozen: commits wait until Patroni takes another one. No acknowledged write is lost.

    When the first commits have timed out, the others leave connections for reads.
    """
    standby = running.synchronous_standby()
    with under_load(running) as ways, ExitStack() as counts:
        backends = [counts.enter_context(counting_backends(way.history.url)) for way in ways]
        began = time.monotonic()
        with standby.frozen():
            eventually(lambda: not running.waits_for(standby), seconds=60, what="another standby", every=0.5)
            replaced = time.monotonic()
            wait_for_writes(ways, replaced)
    running.wait_until_whole()
    print_figures(most_backends=max(map(max, backends)))
    assert max(map(max, backends)) <= CONNECTIONS
    for way in ways:
        way.assert_writes_go_on(began, replaced)
        reads = [e for e in after(way.report, began + 8) if e.request.method == "GET"]
        waiting = [e for e in reads if e.started < began + 16]
        print_figures(reads=len(waiting), reads_succeeded=sum(map(succeeded, waiting)))
        assert all(map(succeeded, waiting))
