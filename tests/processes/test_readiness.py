import asyncio
import json
import signal
import time
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster import as_role, execute, migrate
from tests.processes.load import Client, Exchange, Request
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, free_port, service


def ready(port: int) -> tuple[int, dict[str, Any]]:
    """The status of readiness, and the checks."""
    status, body = fetch(port, "/health/ready")
    return status, json.loads(body)["checks"]


def becomes_ready(server: Server) -> None:
    """Wait until it says so by itself, and see that the workers are those that were there all along."""
    before = server.workers()
    eventually(lambda: ready(server.port)[0] == 200, seconds=5, what="ready")
    assert 200 == fetch(server.port, "/items")[0]
    assert before == server.workers()
    assert 1 == len(before)


def test_a_database_that_comes_later_is_found(own_cluster):
    """Started without one the worker lives and is not ready; requests are 503; then it is ready by itself."""
    own_cluster.stop("immediate")
    with service(own_cluster.url) as server:
        server.serving()
        assert (503, "database_unavailable") == (ready(server.port)[0], ready(server.port)[1]["database"])
        assert 200 == fetch(server.port, "/health")[0]
        assert 503 == fetch(server.port, "/items")[0]
        time.sleep(1)
        own_cluster.start()
        becomes_ready(server)


def test_a_wrong_password_can_be_put_right(own_cluster):
    """A role with another password leaves a live worker that is ready as soon as the password is right."""
    execute(own_cluster.url, "CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'another'")
    rules = own_cluster.data / "pg_hba.conf"
    rules.write_text(f"local all locked scram-sha-256\n{rules.read_text()}")
    execute(own_cluster.url, "SELECT pg_reload_conf()")
    url = as_role(own_cluster.url, "locked:hunter2")
    with service(url) as server:
        server.serving()
        eventually(lambda: ready(server.port)[0] == 503, seconds=3, what="not ready")
        assert "database_unavailable" == ready(server.port)[1]["database"]
        execute(own_cluster.url, "ALTER ROLE locked PASSWORD 'hunter2'")
        becomes_ready(server)
        assert "hunter2" not in server.output()


def test_a_schema_that_is_behind_is_waited_for(empty_database_url):
    """Before its migration a database makes no worker ready; after it, it does, without a restart."""
    with service(empty_database_url) as server:
        server.serving()
        assert (503, {"database": "ok", "schema": "behind", "draining": False}) == ready(server.port)
        assert 1 == total(scrape(server.port), "schema_state", {"state": "behind"})
        migrate(empty_database_url)
        becomes_ready(server)
        assert 1 == total(scrape(server.port), "schema_state", {"state": "current"})


def test_a_schema_that_is_ahead_is_served(database_url):
    """A revision that this code does not know is a newer one: a rollback must stay possible."""
    execute(as_role(database_url, "postgres"), "UPDATE alembic_version SET version_num = '9999'")
    with service(database_url) as server:
        server.serving()
        assert (200, {"database": "ok", "schema": "ahead", "draining": False}) == ready(server.port)


@contextmanager
def kept_connection(port: int) -> Any:
    """Asks on one connection that is kept."""
    with asyncio.Runner() as runner:
        client = Client(port)

        def ask(target: str) -> Exchange:
            return runner.run(client.exchange(0, Request(target=target)))

        yield ask


def test_a_draining_worker_is_not_ready(database_url):
    """On a connection that it still has, it says so, and that it closes."""
    with service(database_url) as server:
        server.serving()
        with kept_connection(server.port) as ask:
            assert 200 == ask("/health/ready").answer.status
            server.send(signal.SIGTERM)
            eventually(lambda: not server.serving_workers(), seconds=3, what="draining")
            exchange = ask("/health/ready")
        assert exchange.kept
        assert exchange.answer.closes
        assert 503 == exchange.answer.status
        assert {"database": "ok", "schema": "current", "draining": True} == json.loads(exchange.answer.body)["checks"]
        assert 0 == server.wait(seconds=10)


def test_a_port_for_operators_keeps_things_apart(database_url):
    """With OPS_PORT metrics and readiness answer there alone, the API does not, and /health does at both."""
    ops_port = free_port()
    with service(database_url, OPS_PORT=str(ops_port)) as server:
        server.serving()
        answers = {
            path: (fetch(server.port, path)[0], fetch(ops_port, path)[0])
            for path in ("/health", "/health/ready", "/metrics", "/items", "/", "/docs", "/openapi.json", "/nothing")
        }
    assert {
        "/health": (200, 200),
        "/health/ready": (404, 200),
        "/metrics": (404, 200),
        "/items": (200, 404),
        "/": (200, 404),
        "/docs": (200, 404),
        "/openapi.json": (200, 404),
        "/nothing": (404, 404),
    } == answers


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
def test_probes_are_never_limited(database_url, path):
    """Whoever watches gets through when its address has used up every limit."""
    with service(database_url, RATE_LIMIT_READ="1/minute") as server:
        server.serving()
        assert [200, 429] == [fetch(server.port, "/items")[0] for _ in range(2)]
        assert {200} == {fetch(server.port, path)[0] for _ in range(5)}
