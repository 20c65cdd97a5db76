"""Readiness with the default settings, while all connections are in use."""

import time
from functools import partial

from tests.cluster import locked, processes_stopped
from tests.processes.load import Request, load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import print_figures

WORKERS = 2


def sample(number: int) -> Request:
    """A list of samples, for one of 50 clients: one client alone may not use all connections."""
    return Request(target="/samples", headers=(("X-Forwarded-For", f"192.0.2.{number % 50}"),))


def probe(server: Server, *, times: int, every: float) -> list[tuple[int, float]]:
    """The statuses of readiness, and the time that each answer took."""
    answers = []
    for _ in range(times):
        started = time.monotonic()
        answers.append((fetch(server.port, "/health/ready")[0], time.monotonic() - started))
        time.sleep(every)
    return answers


def all_connections_in_use(server: Server) -> bool:
    """Whether no worker has a free connection."""
    samples = scrape(server.port)
    return total(samples, "database_pool_in_use") == total(samples, "database_pool_size")


def every_probe_is(status: int, server: Server) -> bool:
    """Whether all of several probes have this status. Each is answered by any of the workers."""
    return {status} == {found for found, _ in probe(server, times=6, every=0.01)}


def test_a_busy_database_is_ready_and_a_frozen_one_is_not(own_cluster):
    """While a lock stops all statements, every worker stays ready. When PostgreSQL is stopped, none is."""
    with service(own_cluster.url, workers=WORKERS) as server:
        server.serving(workers=WORKERS, seconds=60)
        eventually(lambda: every_probe_is(200, server), seconds=20, what="all workers ready")
        with load(server.port, rate=100, kept=100, fresh=0, request=sample):
            with locked(own_cluster.url, "samples"):
                eventually(lambda: all_connections_in_use(server), seconds=20, what="all connections in use")
                busy = probe(server, times=50, every=0.15)
                assert all_connections_in_use(server)
                assert WORKERS == total(scrape(server.port), "worker_ready")
            with processes_stopped(own_cluster):
                began = time.monotonic()
                eventually(lambda: every_probe_is(503, server), seconds=30, what="no worker ready")
                noticed = time.monotonic() - began
                samples = scrape(server.port)
            began = time.monotonic()
            eventually(lambda: every_probe_is(200, server), seconds=30, what="all workers ready again")
            restored = time.monotonic() - began

    print_figures(
        probes=len(busy),
        not_ready=sum(status != 200 for status, _ in busy),
        slowest_probe_seconds=max(seconds for _, seconds in busy),
        out_of_reach_noticed_after_seconds=noticed,
        ready_again_after_seconds=restored,
    )
    assert {200} == {status for status, _ in busy}
    assert 0 == total(samples, "worker_ready") == total(samples, "worker_database_reachable")
    assert WORKERS == total(samples, "schema_state", {"state": "unknown"})


def is_known(server: Server, ready: int) -> bool:
    """Whether the metrics say that this many workers reach the database and are ready."""
    samples = scrape(server.port)
    return {ready} == {total(samples, name) for name in ("worker_ready", "worker_database_reachable")}


def test_the_state_is_known_without_probes(own_cluster):
    """The metrics say that the workers are ready, that the database is gone, and that it is back."""
    with service(own_cluster.url, workers=WORKERS) as server:
        server.serving(workers=WORKERS, seconds=60)
        for ready, change in ((WORKERS, own_cluster.stop), (0, own_cluster.start), (WORKERS, None)):
            eventually(partial(is_known, server, ready), seconds=60, what=f"{ready} workers are ready")
            if change is not None:
                change()
