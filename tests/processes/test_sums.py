"""Clients that each stay within their limits, and are too many."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import asyncpg
import psutil
import pytest

from tests.cluster import execute
from tests.processes.load import Request, load
from tests.processes.raw import connect, read, statuses
from tests.processes.scrape import Samples, scrape, total
from tests.processes.server import Server, eventually, service, without_coverage
from tests.processes.watch import print_figures

MAX_CONNECTIONS = 100
MAX_BUFFERED_BYTES = 4 * 1024 * 1024

HEAD = b"GET /samples HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 60_000
PAGE = b"GET /samples?per_page=100 HTTP/1.1\r\nHost: a\r\n\r\n"


def with_descriptors(server: Server, descriptors: int) -> Server:
    """The server, with this limit of open files."""
    return server.started_by("sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh")


@contextmanager
def others_are_served(server: Server) -> Iterator[None]:
    """Requests of other clients while the block runs: none fails."""
    with load(server.port, rate=50, kept=3, fresh=3, request=lambda _: Request(target="/samples?per_page=1")) as report:
        time.sleep(0.5)
        yield
        time.sleep(0.5)
    assert [] == report.failures()
    assert 200 == max(report.statuses) == min(report.statuses)
    print_figures(requests_of_others=len(report.results), p99_seconds=report.seconds(0.99))


def memory(server: Server) -> int:
    """The memory of all processes, what they share counted once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in (server.process.pid, *server.workers()))


def reported(server: Server) -> Samples:
    """A scrape after every worker has had a heartbeat and a sample."""
    time.sleep(1.5)
    return scrape(server.port)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "count", "reason", "state"),
    [
        (b"", 600, "idle", "idle"),
        (HEAD[:30], 600, "receiving", "receiving"),
        (HEAD, 1_000, "buffered_bytes", "receiving"),
        (PAGE, 80, "buffered_bytes", "unread"),
    ],
    ids=["idle", "unfinished", "long heads", "unread pages"],
)
def test_too_many_connections_of_one_client_leave_others_served(database_url, sent, count, reason, state):
    """The number of its connections and their bytes stay within the limits, are counted, and are logged."""
    execute(
        database_url,
        "INSERT INTO samples (name, description) SELECT 'a', repeat('b', 10000) FROM generate_series(1, 100)",
    )
    limits = {"MAX_CONNECTIONS": str(MAX_CONNECTIONS), "MAX_BUFFERED_BYTES": str(MAX_BUFFERED_BYTES)}
    with without_coverage(service(database_url, workers=2, **limits)) as server, ExitStack() as stack:
        server.serving(workers=2)
        before = memory(server)
        with others_are_served(server):
            for _ in range(count):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                client.settimeout(10)
                client.connect(("127.0.0.1", server.port))
                client.sendall(sent)
                if sent is PAGE:
                    time.sleep(0.02)  # so that requests do not wait for a database connection for too long
            samples = reported(server)
        grown = memory(server) - before
        lines = server.output().count('"connections_shed"')

    assert 0 < total(samples, "worker_connections", {"state": state})
    assert total(samples, "worker_connections") <= 2 * MAX_CONNECTIONS
    assert total(samples, "worker_buffered_bytes") <= 2 * MAX_BUFFERED_BYTES
    assert 0 < total(samples, "worker_connections_shed_total", {"reason": reason})
    assert 1 <= lines <= 2
    print_figures(mib_more=grown / 1024 / 1024, closed=total(samples, "worker_connections_shed_total"))
    assert grown < 100 * 1024 * 1024


@pytest.mark.slow
def test_with_64_descriptors_idle_connections_leave_others_served(database_url):
    """The workers accept fewer connections than are set, and never stop to accept."""
    running = service(database_url, workers=2, DATABASE_CONNECTIONS="6")
    with with_descriptors(running, 64) as server, ExitStack() as stack:
        server.serving(workers=2)
        with others_are_served(server):
            for _ in range(300):
                stack.enter_context(connect(server))
            samples = reported(server)
            used = [psutil.Process(pid).num_fds() for pid in server.workers()]

        assert max(used) < 64
        assert 200 < total(samples, "worker_connections_shed_total", {"reason": "idle"})
        assert 1 == server.output().count('"max_connections_lowered"')


def test_the_descriptors_of_a_worker_are_within_their_reserve(database_url):
    """Before it has any client: RESERVED and the connections of its pool."""
    with service(database_url) as server:
        server.serving()
        scrape(server.port)
        (worker,) = server.workers()
        eventually(lambda: psutil.Process(worker).num_fds() <= 40, seconds=5, what="at most 40 descriptors")


def test_too_few_descriptors_refuse_the_start():
    """The sentence says how many are needed."""
    with with_descriptors(Server(), 48) as server:
        assert server.wait() != 0
        assert "The limit of open files is 48" in server.output()


def test_a_new_connection_is_answered_503_if_all_handlers_run(database_url):
    """The answer is a problem that says when to retry. It is counted as a request and as a refused connection."""
    with (
        service(
            database_url, MAX_CONNECTIONS="8", DATABASE_STATEMENT_SECONDS="60", DATABASE_WAIT_SECONDS="60"
        ) as server,
        ExitStack() as stack,
    ):
        server.serving()
        runner = stack.enter_context(asyncio.Runner())
        locker = runner.run(asyncpg.connect(database_url))
        runner.run(locker.execute("BEGIN; LOCK TABLE samples IN ACCESS EXCLUSIVE MODE"))
        for _ in range(8):
            stack.enter_context(connect(server)).sendall(b"GET /samples/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1)
        with connect(server) as newcomer:
            refused = read(newcomer)
        runner.run(locker.close())
        samples = reported(server)

    head, _, body = refused.partition(b"\r\n\r\n")
    assert [503] == statuses(refused)
    assert b'"code":"too_many_connections"' in body
    assert {b"connection: close", b"retry-after: 1"} <= set(head.lower().split(b"\r\n"))
    assert 1 <= total(samples, "worker_connections_shed_total", {"reason": "refused"})
    assert 1 <= total(samples, "http_requests_total", {"handler": "none", "status": "503"})
