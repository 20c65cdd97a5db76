"""The tests keep transactions open on asyncpg connections; `alembic` runs in processes of its own."""

import asyncio

import asyncpg
import pytest

from app import NAME
from migrations.monitor import LineSchedule
from tests.cluster import as_role, execute
from tests.migrations.alembic import (
    HEAD,
    VERSION_TABLE,
    add_revision,
    event_names,
    events,
    fetch,
    finish,
    start,
    succeed,
)
from tests.migrations.locks import wait_until_blocking

CREATE = 'create_index_concurrently("ix_samples_price", "samples", ["amount"])'
DROP = 'drop_index_concurrently("ix_samples_price", "samples")'
MIGRATIONS = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME} migrations'"
VALIDITY = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_samples_price')"


@pytest.fixture
def index_revision(revisions_copy):
    """A copy of the project whose newest revision creates an index."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=CREATE, downgrade=DROP)
    return revisions_copy


async def reader(url):
    """A connection with an open transaction that has read the samples. A concurrent index build waits for it."""
    settings = {"application_name": "report", "idle_in_transaction_session_timeout": "0"}
    connection = await asyncpg.connect(url, server_settings=settings)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute("SELECT FROM samples LIMIT 1")
    return connection


async def test_an_invalid_index_of_a_failed_run_is_re_created(owner_url, database_url, index_revision):
    """A build that is ended leaves an invalid index. The next run creates a valid one."""
    blocking = await reader(database_url)
    process = start(owner_url, "upgrade", "head", folder=index_revision)
    await wait_until_blocking(blocking)
    waiting = f"SELECT pid FROM pg_locks WHERE NOT granted AND pid IN ({MIGRATIONS})"
    await asyncio.to_thread(execute, as_role(owner_url, "postgres"), f"SELECT pg_terminate_backend(({waiting}))")
    failed = await asyncio.to_thread(finish, process)
    await blocking.close()

    assert 1 == failed.returncode
    assert "the connection broke" in failed.stderr.splitlines()[-1]
    assert [(False,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)

    done = await asyncio.to_thread(succeed, owner_url, "upgrade", "head", folder=index_revision)

    assert ["index_invalid"] == [event for event in event_names(done.stderr) if event.startswith("index")]
    assert [(True,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({"migration_wait_seconds": 1}, 8), pytest.param({}, 75, marks=pytest.mark.slow)],
    ids=["shorter", "defaults"],
)
async def test_an_index_build_waits_for_an_old_snapshot(owner_url, database_url, index_revision, settings, seconds):
    """It waits longer than MIGRATION_WAIT_SECONDS, as it blocks no request. It names the holder, and builds once."""
    blocking = await reader(database_url)
    process = start(owner_url, "upgrade", "head", folder=index_revision, **settings)
    await wait_until_blocking(blocking)
    file = "SELECT relfilenode FROM pg_class WHERE oid = to_regclass('ix_samples_price')"
    built = await asyncio.to_thread(fetch, owner_url, file)
    await asyncio.sleep(seconds)
    # Writes go on during the build.
    other = await asyncpg.connect(database_url, timeout=5)
    await asyncio.wait_for(other.execute("INSERT INTO samples (name) VALUES ('Kettle')"), 0.5)
    await other.close()
    pid = blocking.get_server_pid()
    await blocking.close()
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    assert "migration_blocked" not in done.stderr
    assert built == await asyncio.to_thread(fetch, owner_url, file)
    assert [(True,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)
    waits = [event for event in events(done.stderr) if event["event"] == "index_waiting"]
    assert len(waits) >= (2 if seconds < 60 else 4)
    assert {("ix_samples_price", "waiting for old snapshots")} == {(wait["index"], wait["phase"]) for wait in waits}
    assert f"process {pid} of user items_app (report), idle in transaction, " in waits[-1]["blocked_by"]
    assert " s old, snapshot " in waits[-1]["blocked_by"]


async def test_a_wait_for_the_table_is_named(owner_url, database_url, index_revision):
    """While another statement changes the table, the index is not begun. The wait has no limit either."""
    blocking = await asyncpg.connect(owner_url)
    await blocking.execute("BEGIN; LOCK samples IN SHARE UPDATE EXCLUSIVE MODE")
    process = start(owner_url, "upgrade", "head", folder=index_revision, migration_wait_seconds=1)
    await wait_until_blocking(blocking)
    await asyncio.sleep(6)
    await blocking.execute("COMMIT")
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    waits = [event for event in events(done.stderr) if event["event"] == "index_waiting"]
    assert waits
    assert (None, "waiting for a lock") == (waits[0]["index"], waits[0]["phase"])
    assert f"process {blocking.get_server_pid()} of user items_owner" in waits[0]["blocked_by"]
    await blocking.close()


def test_a_wait_is_logged_every_half_minute(monkeypatch):
    """The first lines come sooner: after 2, 4, 8 and 16 seconds. Another activity begins again."""
    now = 0.0
    monkeypatch.setattr("migrations.monitor.time.monotonic", lambda: now)
    schedule = LineSchedule()
    due = []
    for now in range(130):
        if schedule.is_due("waiting"):
            due.append(now)

    assert [2, 6, 14, 30, 60, 90, 120] == due
    assert not schedule.is_due("building")
    now += 2
    assert schedule.is_due("building")


def test_a_valid_index_of_the_same_name_is_kept(owner_url, index_revision):
    """An index that a DBA has created before the migration is not re-created."""
    execute(owner_url, "CREATE INDEX CONCURRENTLY ix_samples_price ON samples (amount)")
    before = fetch(owner_url, "SELECT to_regclass('ix_samples_price')::oid")

    done = succeed(owner_url, "upgrade", "head", folder=index_revision)

    assert "index_kept" in event_names(done.stderr)
    assert before == fetch(owner_url, "SELECT to_regclass('ix_samples_price')::oid")


def test_an_index_build_has_no_statement_timeout(owner_url, revisions_copy):
    """It runs longer than MIGRATION_STATEMENT_SECONDS, and its progress is logged."""
    slowly = "SELECT length(pg_sleep(0.005)::text) + $1"
    function = f"CREATE FUNCTION slow(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS '{slowly}'"
    execute(as_role(owner_url, "postgres"), function)
    execute(owner_url, "INSERT INTO samples (name) SELECT 'Kettle' FROM generate_series(1, 1000)")
    create = 'import sqlalchemy\ncreate_index_concurrently("ix_samples_slow", "samples", [sqlalchemy.text("slow(id)")])'
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=create)

    done = succeed(owner_url, "upgrade", "head", folder=revisions_copy, migration_statement_seconds=0.5)

    progress = [event for event in events(done.stderr) if event["event"] == "index_growing"]
    assert progress
    assert {"index", "phase", "phase_percent"} <= set(progress[0])
    assert any("building index" in event["phase"] for event in progress)
    # The version is written after the timeouts are set again.
    assert [("9999",)] == fetch(owner_url, f"TABLE {VERSION_TABLE}")


def test_the_downgrade_drops_the_index(owner_url, index_revision):
    """`alembic downgrade` drops the index, concurrently."""
    succeed(owner_url, "upgrade", "head", folder=index_revision)
    succeed(owner_url, "downgrade", HEAD, folder=index_revision)

    assert [] == fetch(owner_url, VALIDITY)
