import asyncio
from time import perf_counter

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from app.health import readiness
from app.health.readiness import Checks, Readiness
from app.health.schema_state import VERSION_TABLE, Revisions
from tests.answers import problem
from tests.databases import connected
from tests.proxy import proxied

HEAD = Revisions().head
READY = Checks(database="ok", schema="current", revision_found=HEAD, revision_needed=HEAD)
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
def test_a_result_passes_with_a_reachable_database_and_a_schema_that_is_not_behind(database, schema, passed):
    """Any other result is a failure."""
    assert passed == Checks(database=database, schema=schema, revision_needed=HEAD).passed


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
    for revision in (HEAD, HEAD, "9999", "9999"):
        await sql.execute(f"UPDATE {VERSION_TABLE} SET version_num = $1", revision)
        await worker.checks()

    assert ["current", "ahead"] == states


async def test_the_revisions_are_named(database, sql, revisions):
    """The result and the event name the revision found and the one needed, and what the database lacks."""
    await sql.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'two'; DROP TABLE idempotency_keys")

    with capture_logs() as lines:
        checks = await Readiness(database, revisions, observer=SchemaStates()).checks()

    assert Checks(database="ok", schema="behind", revision_found="two", revision_needed="three") == checks
    assert [
        {
            "event": "readiness_changed",
            "log_level": "warning",
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
@pytest.mark.usefixtures("short_times")
async def test_a_missing_privilege_is_not_ready(database, sql, revoke, found):
    """The code says so, the event names the role and the privilege, and a GRANT makes the worker ready again."""
    states = SchemaStates()
    worker = readiness_of(database, states)
    await sql.execute(f"REVOKE {revoke} FROM items_app")

    with capture_logs() as lines:
        checks = await worker.checks()

    assert not checks.passed
    assert ("database_permission_denied", *found) == (checks.database, checks.schema, checks.revision_found)
    privilege = revoke.replace(" ON ", " on ")
    assert f"The role items_app lacks {privilege}: grant it." == lines[0]["cause"]

    await sql.execute(f"GRANT {revoke} TO items_app")
    assert READY == await worker.checks()
    assert ["unknown", "current"] == states  # an alert fires for `unknown`


@pytest.fixture
async def without_insert(sql):
    """Take a privilege away. A test names it before `client`: a worker that started checks its database at once."""
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
