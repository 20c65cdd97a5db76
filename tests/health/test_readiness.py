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
    """Notes what the observer is told."""

    def schema_is(self, state):
        """Note it."""
        self.append(state)


@pytest.fixture
def fresh(monkeypatch):
    """Make a result old at once, so that each question is a check."""
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.3)

    async def wait():
        await asyncio.sleep(0.31)

    return wait


def ready(database, states=None):
    """The readiness of a worker with this database."""
    return Readiness(database, Revisions(), observer=SchemaStates() if states is None else states)


async def test_a_migrated_database_is_ready(database):
    """Both checks pass, and the metrics are told."""
    states = SchemaStates()

    checks = await ready(database, states).checks()

    assert checks == READY
    assert checks.passed
    assert ["current"] == states


@pytest.mark.parametrize(
    ("database", "schema", "passed"),
    [("ok", "current", True), ("ok", "ahead", True), ("ok", "behind", False), ("ok", "unknown", False),
     ("database_unavailable", "unknown", False), ("timeout", "current", False), ("unchecked", "unknown", False)],
)  # fmt: skip
def test_what_passes(database, schema, passed):
    """The database must be in reach and its schema not behind."""
    assert passed == Checks(database=database, schema=schema).passed


async def test_one_check_serves_all_who_ask(database_url):
    """50 questions at once, and those of the second after, are one statement."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        asked = ready(database)
        await asked.checks()
        asked._checked_at = float("-inf")
        before = proxy.round_trips

        answers = await asyncio.gather(*(asked.checks() for _ in range(50)))
        answers.append(await asked.checks())

        assert {READY} == set(answers)
        assert 1 == proxy.round_trips - before


async def test_a_database_that_goes_and_comes_is_followed(database_url, fresh):
    """Without the database a worker is not ready, and with it it is, without a restart."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        asked = ready(database)
        assert (await asked.checks()).passed

        proxy.freeze()
        await fresh()
        started = perf_counter()
        frozen = await asked.checks()
        assert perf_counter() - started < 0.6
        assert (frozen.database, frozen.schema, frozen.passed) == ("timeout", "unknown", False)

        proxy.thaw()
        await fresh()
        assert (await asked.checks()).passed
    async with connected("postgresql://a@127.0.0.1:1/b") as database:
        with capture_logs() as lines:
            refused = await ready(database).checks()
        assert ("database_unavailable", "unknown") == (refused.database, refused.schema)
        assert ["warning"] == [line["log_level"] for line in lines]
        assert "ConnectionRefusedError" in lines[0]["cause"]


async def test_a_busy_worker_stays_as_it_was(database_url, fresh):
    """Every connection at work is no reason to send the load elsewhere."""
    async with connected(database_url, connections=1, wait_seconds=0.1) as database:
        asked = ready(database)
        assert (await asked.checks()).passed
        await fresh()

        busy = asyncio.create_task(database.run(SLEEP, {}))
        await asyncio.sleep(0.05)
        checks = await asked.checks()

        assert not busy.done()
        assert READY == checks
        await busy


async def test_who_gives_up_asking_does_not_spoil_the_check(database):
    """A probe that is cancelled leaves the check to the others that wait for it."""
    asked = ready(database)
    first, second = asyncio.create_task(asked.checks()), asyncio.create_task(asked.checks())
    await asyncio.sleep(0)

    first.cancel()

    assert READY == await second


async def test_a_change_is_told_once(database, sql, fresh):
    """The metrics hear of each change of the schema's state, and of nothing else."""
    states = SchemaStates()
    asked = ready(database, states)
    for revision in (Revisions().head, Revisions().head, "9999", "9999"):
        await sql.execute("UPDATE alembic_version SET version_num = $1", revision)
        await asked.checks()
        await fresh()

    assert ["current", "ahead"] == states
