import asyncio
from time import perf_counter

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from app.health import readiness
from app.health.readiness import Checks, Readiness
from app.health.schema_state import Revisions
from tests.databases import connected
from tests.proxy import proxied

READY = Checks(database="ok", schema="current")
SLEEP = text("SELECT pg_sleep(0.7)")


class SchemaStates(list[str]):
    """Records the states that the observer receives."""

    def set_schema_state(self, state):
        """Record the state."""
        self.append(state)


@pytest.fixture
def short_times(monkeypatch):
    """Shorten the timeout of a check, and reuse no result."""
    monkeypatch.setattr(readiness, "CHECK_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)


def readiness_of(database, states=None):
    """The readiness of a worker with this database."""
    return Readiness(database, Revisions(), observer=SchemaStates() if states is None else states)


async def test_a_migrated_database_is_ready(database):
    """Both checks pass, and the metrics receive the state."""
    states = SchemaStates()

    checks = await readiness_of(database, states).checks()

    assert checks == READY
    assert checks.passed
    assert ["current"] == states


@pytest.mark.parametrize(
    ("database", "schema", "passed"),
    [("ok", "current", True), ("ok", "ahead", True), ("ok", "behind", False), ("ok", "unknown", False),
     ("database_unavailable", "unknown", False), ("timeout", "current", False), ("unchecked", "unknown", False)],
)  # fmt: skip
def test_which_results_pass(database, schema, passed):
    """The database must be reachable and its schema not behind."""
    assert passed == Checks(database=database, schema=schema).passed


async def test_concurrent_callers_share_one_check(database_url):
    """50 concurrent calls, and a call within CACHE_SECONDS, run one statement."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        worker = readiness_of(database)
        await worker.checks()
        worker._checked_at = float("-inf")
        before = proxy.round_trips

        answers = await asyncio.gather(*(worker.checks() for _ in range(50)))
        answers.append(await worker.checks())

        assert {READY} == set(answers)
        assert 1 == proxy.round_trips - before


async def test_readiness_follows_the_database(database_url, short_times):
    """While the database does not answer, the worker is not ready. It becomes ready again without a restart."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        worker = readiness_of(database)
        assert (await worker.checks()).passed

        proxy.freeze()
        started = perf_counter()
        frozen = await worker.checks()
        assert perf_counter() - started < 0.6
        assert (frozen.database, frozen.schema, frozen.passed) == ("timeout", "unknown", False)

        proxy.thaw()
        assert (await worker.checks()).passed
    async with connected("postgresql://a@127.0.0.1:1/b") as database:
        with capture_logs() as lines:
            refused = await readiness_of(database).checks()
        assert ("database_unavailable", "unknown") == (refused.database, refused.schema)
        assert ["warning"] == [line["log_level"] for line in lines]
        assert "ConnectionRefusedError" in lines[0]["cause"]


async def test_a_busy_worker_stays_ready(database_url, short_times):
    """If all connections are in use, the last result stays."""
    async with connected(database_url, connections=1, wait_seconds=0.1) as database:
        worker = readiness_of(database)
        assert (await worker.checks()).passed

        busy = asyncio.create_task(database.run(SLEEP, {}))
        await asyncio.sleep(0.05)
        checks = await worker.checks()

        assert not busy.done()
        assert READY == checks
        await busy


async def test_a_cancelled_caller_does_not_cancel_the_check(database):
    """The other callers still receive the result."""
    worker = readiness_of(database)
    first, second = asyncio.create_task(worker.checks()), asyncio.create_task(worker.checks())
    await asyncio.sleep(0)

    first.cancel()

    assert READY == await second


async def test_each_change_is_reported_once(database, sql, short_times):
    """The metrics receive the schema's state when it changes, and not otherwise."""
    states = SchemaStates()
    worker = readiness_of(database, states)
    for revision in (Revisions().head, Revisions().head, "9999", "9999"):
        await sql.execute("UPDATE alembic_version SET version_num = $1", revision)
        await worker.checks()

    assert ["current", "ahead"] == states
