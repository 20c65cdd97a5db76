"""The connections of one instance, counted in PostgreSQL, while its workers come and go."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.processes.load import Request, load, send_load
from tests.processes.scrape import scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import counting_backends, print_figures


def of_many_clients(number: int) -> Request:
    """A read. Each is of another client, because one client alone may not use every connection."""
    return Request(target="/samples/1", headers=(("X-Forwarded-For", f"10.0.0.{number % 250}"),))


def of_one_client(_number: int) -> Request:
    """A read."""
    return Request(target="/samples")


@contextmanager
def locked_samples(url: str) -> Iterator[None]:
    """A transaction that keeps all statements waiting until its end; the role of the service could not idle so long."""
    with psycopg.connect(url, user="postgres") as locker:
        locker.execute("LOCK TABLE samples IN ACCESS EXCLUSIVE MODE")
        yield


def usable(server: Server) -> float:
    """The connections that all workers together may have now."""
    return total(scrape(server.port), "database_pool_size")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 8])
def test_the_budget_is_used_in_full(database_url, workers):
    """While all statements wait for a lock, PostgreSQL has exactly DATABASE_CONNECTIONS sessions."""
    settings = {"DATABASE_STATEMENT_SECONDS": "4", "DATABASE_CONNECTIONS": "20"}
    with service(database_url, workers=workers, **settings) as server, counting_backends(database_url) as backends:
        server.serving(workers=workers)
        eventually(lambda: usable(server) == 20, seconds=60, what="20 connections")
        # The load ends last: its requests get their answers when the lock is released.
        with load(server.port, rate=200, kept=0, fresh=150, request=of_many_clients), locked_samples(database_url):
            eventually(lambda: backends and backends[-1] == 20, seconds=60, what="20 sessions")
        assert 20 == max(backends)


def test_killed_workers_and_signals_hold_the_budget(database_url):
    """A worker is killed while its statements wait for a lock; then there is one worker fewer, and one more again."""
    settings = {"DATABASE_STATEMENT_SECONDS": "4", "DATABASE_CONNECTIONS": "8"}
    with service(database_url, workers=2, **settings) as server, counting_backends(database_url) as backends:
        server.serving(workers=2)
        with load(server.port, rate=150, seconds=300, kept=0, fresh=100, request=of_many_clients):
            for _ in range(2):
                with locked_samples(database_url):
                    eventually(lambda: backends[-1] == 8, seconds=60, what="8 sessions")
                    os.kill(server.serving_workers()[0], signal.SIGKILL)
                    eventually(lambda: backends[-1] < 8, seconds=60, what="the end of its sessions")
                    eventually(lambda: backends[-1] == 8, seconds=60, what="8 sessions again")
            server.send(signal.SIGTTOU)
            eventually(lambda: len(server.workers()) == 1 and usable(server) == 8, seconds=60, what="one with all")
            server.send(signal.SIGTTIN)
            server.serving(workers=2)
            eventually(lambda: usable(server) == 8, seconds=60, what="two with a part each")
        print_figures(most_backends=max(backends))
        assert 8 == max(backends)


def test_forty_requests_at_once_after_an_exhaustion(database_url):
    """Two workers with four connections together answer them all 200 as soon as no statement waits any more."""
    settings = {"DATABASE_STATEMENT_SECONDS": "2", "DATABASE_CONNECTIONS": "4"}
    with service(database_url, workers=2, **settings) as server, counting_backends(database_url) as backends:
        server.serving(workers=2)
        with (
            locked_samples(database_url),
            load(server.port, rate=100, kept=40, fresh=0, request=of_one_client) as exhausted,
        ):
            time.sleep(3)
        at_once = asyncio.run(send_load(server.port, rate=40_000, kept=40, count=40, request=of_one_client))
        codes = Counter(json.loads(e.answer.body)["code"] for e in exhausted.failures() if e.answer)
        print_figures(most_backends=max(backends), **codes)

    assert {503, 504} == set(exhausted.statuses) - {200}
    assert {200: 40} == at_once.statuses
    assert max(backends) <= 4
