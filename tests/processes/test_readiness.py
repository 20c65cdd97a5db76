import asyncio
import json
import signal
import time
from contextlib import contextmanager
from typing import Any

import pytest

from app.health.schema_state import VERSION_TABLE
from tests.cluster import as_role, create_samples, execute, migrate
from tests.migrations.alembic import HEAD
from tests.processes.load import Client, Request, RequestResult
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, free_port, service

CHECKS = {
    "database": "ok",
    "schema": "current",
    "revision_found": HEAD,
    "revision_needed": HEAD,
    "draining": False,
}


def ready(port: int) -> tuple[int, dict[str, Any]]:
    """The status of readiness, and the checks."""
    status, body = fetch(port, "/health/ready")
    return status, json.loads(body)["checks"]


def assert_becomes_ready(server: Server) -> None:
    """Wait until the server is ready, and check that no worker was replaced."""
    before = server.workers()
    eventually(lambda: ready(server.port)[0] == 200, seconds=5, what="ready")
    assert 200 == fetch(server.port, "/samples")[0]
    assert before == server.workers()
    assert 1 == len(before)


def test_a_worker_becomes_ready_when_the_database_starts(own_cluster):
    """Before that the worker lives, is not ready, and answers requests with 503."""
    own_cluster.stop("immediate")
    with service(own_cluster.url) as server:
        server.serving()
        assert (503, "database_unavailable") == (ready(server.port)[0], ready(server.port)[1]["database"])
        assert 200 == fetch(server.port, "/health")[0]
        assert 503 == fetch(server.port, "/samples")[0]
        time.sleep(1)
        own_cluster.start()
        assert_becomes_ready(server)


def test_a_worker_becomes_ready_when_the_password_is_corrected(own_cluster):
    """With a wrong password the worker lives and is not ready."""
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
        assert_becomes_ready(server)
        assert "hunter2" not in server.output()


def test_a_worker_becomes_ready_when_the_schema_is_migrated(empty_database_url):
    """Before the migration the worker is not ready. It needs no restart."""
    with service(empty_database_url) as server:
        server.serving()
        assert (503, CHECKS | {"schema": "behind", "revision_found": None}) == ready(server.port)
        assert 1 == total(scrape(server.port), "schema_state", {"state": "behind"})
        migrate(empty_database_url)
        create_samples(empty_database_url)
        assert_becomes_ready(server)
        assert 1 == total(scrape(server.port), "schema_state", {"state": "current"})


def test_a_schema_that_is_ahead_is_served(database_url):
    """A revision that this code does not know is a newer one: a rollback must stay possible."""
    execute(as_role(database_url, "postgres"), f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with service(database_url) as server:
        server.serving()
        assert (200, CHECKS | {"schema": "ahead", "revision_found": "9999"}) == ready(server.port)


@contextmanager
def kept_connection(port: int) -> Any:
    """A function that sends requests on one kept connection."""
    with asyncio.Runner() as runner:
        client = Client(port)

        def send(target: str) -> RequestResult:
            return runner.run(client.send(0, Request(target=target)))

        yield send


def test_a_draining_worker_is_not_ready(database_url):
    """It says so on a kept connection, with `Connection: close`."""
    with service(database_url) as server:
        server.serving()
        with kept_connection(server.port) as send:
            assert 200 == send("/health/ready").answer.status
            server.send(signal.SIGTERM)
            eventually(lambda: not server.serving_workers(), seconds=3, what="draining")
            result = send("/health/ready")
        assert result.kept
        assert result.answer.closes
        assert 503 == result.answer.status
        assert CHECKS | {"draining": True} == json.loads(result.answer.body)["checks"]
        assert 0 == server.wait(seconds=10)


def test_ops_port_separates_metrics_and_readiness_from_the_api(database_url):
    """Metrics and readiness answer at OPS_PORT only, the API at PORT only, and /health at both."""
    ops_port = free_port()
    with service(database_url, OPS_PORT=str(ops_port)) as server:
        server.serving()
        answers = {
            path: (fetch(server.port, path)[0], fetch(ops_port, path)[0])
            for path in ("/health", "/health/ready", "/metrics", "/samples", "/", "/docs", "/openapi.json", "/nothing")
        }
    assert {
        "/health": (200, 200),
        "/health/ready": (404, 200),
        "/metrics": (404, 200),
        "/samples": (200, 404),
        "/": (200, 404),
        "/docs": (200, 404),
        "/openapi.json": (200, 404),
        "/nothing": (404, 404),
    } == answers


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
def test_probes_are_never_rate_limited(database_url, path):
    """They are answered 200 when their client has reached its rate limit."""
    with service(database_url, RATE_LIMIT_READ="1/minute") as server:
        server.serving()
        assert [200, 429] == [fetch(server.port, "/samples")[0] for _ in range(2)]
        assert {200} == {fetch(server.port, path)[0] for _ in range(5)}
