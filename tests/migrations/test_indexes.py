"""The tests keep transactions open on asyncpg connections; `alembic` runs in processes of its own."""

import asyncio

import asyncpg
import pytest

from tests.cluster import as_role, execute
from tests.migrations.alembic import (
    HEAD,
    VERSION_TABLE,
    add_revision,
    alembic,
    event_names,
    events,
    fetch,
    finish,
    start,
    succeed,
)

CREATE = 'create_index_concurrently("ix_samples_price", "samples", ["amount"])'
DROP = 'drop_index_concurrently("ix_samples_price", "samples")'
VALIDITY = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_samples_price')"


@pytest.fixture
def index_revision(revisions_copy):
    """A copy of the project whose newest revision creates an index."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=CREATE, downgrade=DROP)
    return revisions_copy


async def reader(url):
    """A connection with an open transaction that has read the samples. A concurrent index build waits for it."""
    connection = await asyncpg.connect(url, server_settings={"idle_in_transaction_session_timeout": "0"})
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute("SELECT FROM samples LIMIT 1")
    return connection


async def test_an_invalid_index_of_a_failed_run_is_re_created(owner_url, database_url, index_revision):
    """A build that fails leaves an invalid index and names the blocking process. The next run creates a valid one."""
    blocking = await reader(database_url)
    failed = await asyncio.to_thread(
        alembic,
        owner_url,
        "upgrade",
        "head",
        folder=index_revision,
        migration_lock_seconds=0.2,
        migration_wait_seconds=1,
    )
    pid = blocking.get_server_pid()
    await blocking.close()

    assert 1 == failed.returncode
    assert f"process {pid} of user items_app" in failed.stderr.splitlines()[-1]
    assert [(False,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)

    done = await asyncio.to_thread(succeed, owner_url, "upgrade", "head", folder=index_revision)

    assert ["index_invalid"] == [event for event in event_names(done.stderr) if event.startswith("index")]
    assert [(True,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)


async def test_an_index_build_waits_longer_than_the_lock_timeout(owner_url, database_url, index_revision):
    """It blocks no request, so it waits for older transactions for up to MIGRATION_WAIT_SECONDS."""
    blocking = await reader(database_url)
    process = start(
        owner_url, "upgrade", "head", folder=index_revision, migration_lock_seconds=0.2, migration_wait_seconds=20
    )
    await asyncio.sleep(3)
    # Writes go on during the build.
    other = await asyncpg.connect(database_url, timeout=5)
    await asyncio.wait_for(other.execute("INSERT INTO samples (name) VALUES ('Kettle')"), 0.5)
    await other.close()
    await blocking.close()
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    assert "migration_blocked" not in done.stderr
    assert [(True,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)


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
