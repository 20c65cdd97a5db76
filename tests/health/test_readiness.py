import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from structlog.testing import LogCapture, capture_logs

from app.errors import DatabaseUnavailableError, PoolExhaustedError, StatementTimeoutError
from app.health import readiness
from app.health.last_report import LastReport
from app.health.readiness import Checks, Readiness
from app.health.schema_state import VERSION_TABLE, Revisions
from tests.answers import problem
from tests.databases import connected
from tests.proxy import proxied

HEAD = Revisions().head
READY = Checks(database="ok", schema="current", revision_found=HEAD, revision_needed=HEAD)
SLEEP = text("SELECT pg_sleep(0.7)")
ALONE = LastReport(None, "readiness")


UNCHECKED = (False, False, "unknown")


class Reports(list[tuple[bool, bool, str]]):
    """Records what the observer receives: ready, database reachable, schema state."""

    worker = "0"

    def set_readiness(self, *, ready, database_reachable, schema_state, read_only=False):
        """Record the result."""
        self.append((ready, database_reachable, schema_state))


@pytest.fixture
def short_times(monkeypatch):
    """Shorten the timeout of a check, and the pause between two."""
    monkeypatch.setattr("app.database.CHECK_SECONDS", 0.3)
    monkeypatch.setattr(readiness, "INTERVAL_SECONDS", 0.05)


def readiness_of(database, reports=None, last_report=ALONE):
    """The readiness of a worker with this database."""
    return Readiness(database, Revisions(), Reports() if reports is None else reports, last_report)


class Failing:
    """A database whose checks fail, each with the next of these errors."""

    def __init__(self, *errors):
        self.errors = list(errors)

    async def check(self, _statement):
        """Fail."""
        raise self.errors.pop(0)


async def test_a_busy_primary_does_not_keep_a_worker_ready_whose_replica_is_gone():
    """The last result stays while the primary is busy, but a replica that has answered then may be gone."""
    replicas: Any = SimpleNamespace(answering=SimpleNamespace(schema_state="current", revision=HEAD))
    database: Any = Failing(DatabaseUnavailableError(), StatementTimeoutError(), StatementTimeoutError())
    worker = Readiness(database, Revisions(), Reports(), ALONE, replicas=replicas)

    assert ("read_only", True) == ((checks := await worker.check()).database, checks.passed)
    assert (await worker.check()).passed
    replicas.answering = None
    assert ("read_only", False) == ((checks := await worker.check()).database, checks.passed)


async def test_a_migrated_database_is_ready(database):
    """Both checks pass. The metrics receive that, and before that that nothing is known."""
    reports = Reports()

    checks = await readiness_of(database, reports).check()

    assert checks == READY
    assert checks.passed
    assert [UNCHECKED, (True, True, "current")] == reports


@pytest.mark.parametrize(
    ("database", "schema", "passed"),
    [("ok", "current", True), ("ok", "ahead", True), ("ok", "behind", False), ("ok", "unknown", False),
     ("database_unavailable", "unknown", False), ("timeout", "current", False), ("unchecked", "unknown", False)],
)  # fmt: skip
def test_a_result_passes_with_a_reachable_database_and_a_schema_that_is_not_behind(database, schema, passed):
    """Any other result is a failure."""
    assert passed == Checks(database=database, schema=schema, revision_needed=HEAD).passed


async def test_probes_run_no_statement(database_url, monkeypatch):
    """The worker checks by itself. 50 concurrent probes get the last result."""
    monkeypatch.setattr(readiness, "INTERVAL_SECONDS", 60.0)
    async with (
        proxied(database_url) as proxy,
        connected(proxy.url) as database,
        readiness_of(database).opened() as worker,
    ):
        await worker.checks()
        before = proxy.round_trips

        assert {READY} == set(await asyncio.gather(*(worker.checks() for _ in range(50))))
        assert 0 == proxy.round_trips - before


async def test_a_probe_waits_for_the_first_result_only(database_url, monkeypatch):
    """If the database does not answer a new worker, its probes are answered all the same: it is not ready."""
    monkeypatch.setattr(readiness, "FIRST_SECONDS", 0.1)
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        proxy.freeze()
        async with readiness_of(database).opened() as worker:
            assert "unchecked" == (await worker.checks()).database
            proxy.thaw()
            assert await becomes(worker, "ok") == READY


async def becomes(worker, database):
    """The result in which the database has this code. It is waited for at most 20 seconds."""
    async with asyncio.timeout(20):
        while (checks := await worker.checks()).database != database:  # noqa: ASYNC110  # it changes by itself
            await asyncio.sleep(0.01)
    return checks


async def test_readiness_follows_the_database_without_probes(database_url, short_times):
    """The metrics say when the database no longer answers, and when it answers again."""
    reports = Reports()
    async with (
        proxied(database_url) as proxy,
        connected(proxy.url) as database,
        readiness_of(database, reports).opened() as worker,
    ):
        await becomes(worker, "ok")

        proxy.freeze()
        frozen = await becomes(worker, "database_unavailable")
        assert ("unknown", False) == (frozen.schema, frozen.passed)

        proxy.thaw()
        assert (await becomes(worker, "ok")).passed
    assert [UNCHECKED, (True, True, "current"), UNCHECKED, (True, True, "current")] == reports


async def test_a_database_that_refuses_connections_is_named_once():
    """One line has the cause and what to check."""
    async with connected("postgresql://a@127.0.0.1:1/b") as database:
        worker = readiness_of(database)
        with capture_logs() as lines:
            refused = [await worker.check() for _ in range(3)]

    assert {("database_unavailable", "unknown")} == {(checks.database, checks.schema) for checks in refused}
    assert ["warning"] == [line["log_level"] for line in lines]
    assert "ConnectionRefusedError" in lines[0]["cause"]
    assert lines[0]["advice"].startswith("Check DATABASE_URL")


async def test_a_busy_worker_is_checked_before_its_requests(database_url):
    """The check takes the first connection that comes free, although requests wait that came before it."""
    async with connected(database_url, connections=1, wait_seconds=5.0) as database:
        worker, ended = readiness_of(database), []

        async def run(name, running):
            await running
            ended.append(name)

        async with asyncio.TaskGroup() as group:
            for name in ("first", "second", "third"):
                group.create_task(run(name, database.run(SLEEP, {})))
                await asyncio.sleep(0.05)
            group.create_task(run("check", worker.check()))

        assert ["first", "check", "second", "third"] == ended
        assert READY == await worker.checks()


async def test_a_busy_worker_keeps_its_state_for_longer_than_a_request_may_wait(database_url):
    """While all connections are in use, the check waits, probes get the last result, and requests are refused."""
    async with connected(database_url, connections=1, wait_seconds=0.1, statement_seconds=5.0) as database:
        worker = readiness_of(database)
        await worker.check()
        busy = asyncio.create_task(database.run(text("SELECT pg_sleep(2)"), {}))
        await asyncio.sleep(0.05)
        check = asyncio.create_task(worker.check())

        with pytest.raises(PoolExhaustedError):
            await database.run(SLEEP, {})

        assert not check.done()
        assert READY == await worker.checks()
        await busy
        assert READY == await check


async def test_a_slow_database_is_not_one_out_of_reach(database_url, sql, short_times):
    """The server does not end the check in time and answers its cancellation: the worker keeps its state."""
    async with connected(database_url) as database:
        worker = readiness_of(database)
        assert READY == await worker.check()

        async with sql.transaction():
            await sql.execute(f"LOCK TABLE {VERSION_TABLE}")
            assert READY == await worker.check()
        assert READY == await worker.check()
        assert 0 == database.state.in_use


async def test_a_slow_database_at_the_start_is_not_ready(database_url, sql, short_times):
    """Nothing is known yet."""
    async with connected(database_url) as database, sql.transaction():
        await sql.execute(f"LOCK TABLE {VERSION_TABLE}")

        assert "unchecked" == (await readiness_of(database).check()).database


async def test_a_server_that_takes_no_writes_is_read_only(database_url, sql, monkeypatch):
    """The worker is not ready, the event says why, and reads succeed. The check has all connections replaced."""
    monkeypatch.setattr("app.database.pool.REPLACE_SECONDS", 0)
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with connected(database_url) as database:
        worker = readiness_of(database)
        with capture_logs() as lines:
            checks = await worker.check()

        assert ("read_only", "current") == (checks.database, checks.schema)
        assert (False, True, "unknown") == (checks.passed, checks.reachable, checks.usable_schema)
        assert "The server takes no writes" in lines[0]["cause"]
        assert 1 == (await database.run(text("SELECT 1 AS one"), {}))[0]["one"]

        await sql.execute(f'SET default_transaction_read_only = off; ALTER DATABASE "{name}" RESET ALL')
        await worker.check()  # It uses the connection of the read; then all are replaced.
        assert READY == await worker.check()


async def test_a_url_of_servers_that_take_no_writes_is_read_only(database_url, sql):
    """No connection can be opened, and the result says that a server has answered."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with connected(f"{database_url}&target_session_attrs=read-write") as database:
        with capture_logs() as lines:
            checks = await readiness_of(database).check()

    assert ("read_only", True, False) == (checks.database, checks.reachable, checks.passed)
    assert "the server takes no writes" in lines[0]["cause"]


async def test_a_defect_of_the_check_is_not_ready(database, monkeypatch):
    """Any exception that has no name counts as a failure, and is logged once."""
    worker = readiness_of(database)
    await worker.check()

    async def fail(_database):
        raise ZeroDivisionError

    monkeypatch.setattr(readiness, "read_schema", fail)
    with capture_logs() as lines:
        checks = [await worker.check() for _ in range(3)]

    assert {("check_failed", False, False)} == {(found.database, found.passed, found.reachable) for found in checks}
    assert ["readiness_check_failed", "readiness_changed"] == [line["event"] for line in lines]


async def test_each_change_is_reported_once(database, sql):
    """The metrics receive a result when it differs from the last one, and not otherwise."""
    reports = Reports()
    worker = readiness_of(database, reports)
    for revision in (HEAD, HEAD, "9999", "9999"):
        await sql.execute(f"UPDATE {VERSION_TABLE} SET version_num = $1", revision)
        await worker.check()

    assert [UNCHECKED, (True, True, "current"), (True, True, "ahead")] == reports


async def test_a_change_is_one_line_for_all_workers(database, sql, monkeypatch, tmp_path):
    """The worker that sees it first writes the line. The lines of the others are at debug."""
    lines = LogCapture()  # not `capture_logs`: an earlier test may have chosen a level
    logger = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr(readiness, "log", logger)

    workers = []
    for slot in ("1", "0"):
        reports = Reports()
        reports.worker = slot
        workers.append(readiness_of(database, reports, LastReport(tmp_path, "readiness")))
        await workers[-1].check()
    await sql.execute("REVOKE INSERT ON idempotency_keys FROM items_app")
    for worker in reversed(workers):
        await worker.check()

    assert [("info", "1"), ("debug", "0"), ("warning", "0"), ("debug", "1")] == [
        (line["log_level"], line["slot"]) for line in lines.entries
    ]


async def test_the_revisions_are_named(database, sql, revisions):
    """The result and the event name the revision found and the one needed, and what the database lacks."""
    await sql.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'two'; DROP TABLE idempotency_keys")

    with capture_logs() as lines:
        checks = await Readiness(database, revisions, Reports(), ALONE).check()

    assert Checks(database="ok", schema="behind", revision_found="two", revision_needed="three") == checks
    assert [
        {
            "event": "readiness_changed",
            "log_level": "warning",
            "slot": "0",
            "database": "ok",
            "schema": "behind",
            "revision_found": "two",
            "revision_needed": "three",
            "cause": "The database lacks the table idempotency_keys.",
        }
    ] == lines


@pytest.mark.parametrize(
    ("revoke", "found"),
    [("INSERT ON idempotency_keys", ("current", HEAD)), (f"SELECT ON {VERSION_TABLE}", ("unknown", None))],
)
async def test_a_missing_privilege_is_not_ready(database, sql, revoke, found):
    """The code says so, the event names the role and the privilege, and a GRANT makes the worker ready again."""
    reports = Reports()
    worker = readiness_of(database, reports)
    await sql.execute(f"REVOKE {revoke} FROM items_app")

    with capture_logs() as lines:
        checks = await worker.check()

    assert not checks.passed
    assert ("database_permission_denied", *found) == (checks.database, checks.schema, checks.revision_found)
    privilege = revoke.replace(" ON ", " on ")
    assert f"The role items_app lacks {privilege}: grant it." == lines[0]["cause"]

    await sql.execute(f"GRANT {revoke} TO items_app")
    assert READY == await worker.check()
    # An alert fires for `unknown`.
    assert [UNCHECKED, (False, True, "unknown"), (True, True, "current")] == reports


@pytest.fixture
async def without_insert(sql, monkeypatch):
    """Take a privilege away. A test names it before `client`: a worker that started checks its database at once.

    The check has time to connect, even if the machine is busy.
    """
    monkeypatch.setattr(readiness, "FIRST_SECONDS", 30.0)
    monkeypatch.setattr("app.database.connection.CONNECT_SECONDS", 30.0)
    await sql.execute("REVOKE INSERT ON idempotency_keys FROM items_app")


async def test_a_request_without_a_privilege_is_answered_503(without_insert, client):
    """Readiness and the request have the same code. It is not the 500 of a defect."""
    key = {"Idempotency-Key": "k"}
    ready, created = (
        await client.get("/health/ready"),
        await client.post("/samples", json={"name": "Kettle"}, headers=key),
    )

    assert "database_permission_denied" == problem(ready, 503, "not_ready")["checks"]["database"]
    problem(created, 503, "database_permission_denied")
