"""The locks that stand in the way are held by asyncpg's connections; `alembic` runs in processes of its own."""

import asyncio
import json

import asyncpg
import pytest

from tests.cluster import as_role, execute
from tests.migrations.alembic import HEAD, add_revision, alembic, fetch, finish, start, succeed

MAKE = 'create_index_concurrently("ix_items_price", "items", ["price"])'
DROP = 'drop_index_concurrently("ix_items_price", "items")'
VALIDITY = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_items_price')"


@pytest.fixture
def indexing(revisions):
    """Revisions of which the newest makes an index."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=MAKE, downgrade=DROP)
    return revisions


def events(stderr):
    """The log lines, which are JSON objects."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


async def reader(url):
    """A connection with a transaction that has read, which an index waits for."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute("SELECT FROM items LIMIT 1")
    return connection


async def test_an_index_left_behind_invalid_is_made_again(owner_url, database_url, indexing):
    """A build that gave up leaves an invalid index and names who was in its way; the next run makes a valid one."""
    blocking = await reader(database_url)
    failed = await asyncio.to_thread(
        alembic, owner_url, "upgrade", "head", folder=indexing, migration_lock_seconds=0.2, migration_wait_seconds=1
    )
    pid = blocking.get_server_pid()
    await blocking.close()

    assert 1 == failed.returncode
    assert f"process {pid} of user items_app" in failed.stderr.splitlines()[-1]
    assert [(False,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)

    done = await asyncio.to_thread(succeed, owner_url, "upgrade", "head", folder=indexing)

    assert ["index_invalid"] == [event["event"] for event in events(done.stderr) if event["event"].startswith("index")]
    assert [(True,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)


async def test_an_index_waits_longer_than_other_migrations(owner_url, database_url, indexing):
    """Nobody queues up behind it, so it waits for older transactions as long as patience lasts, not `lock_timeout`."""
    blocking = await reader(database_url)
    process = start(
        owner_url, "upgrade", "head", folder=indexing, migration_lock_seconds=0.2, migration_wait_seconds=20
    )
    await asyncio.sleep(3)
    # Reading and writing go on meanwhile.
    other = await asyncpg.connect(database_url, timeout=5)
    await asyncio.wait_for(other.execute("INSERT INTO items (name) VALUES ('Kettle')"), 0.5)
    await other.close()
    await blocking.close()
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    assert "migration_blocked" not in done.stderr
    assert [(True,)] == await asyncio.to_thread(fetch, owner_url, VALIDITY)


def test_an_index_that_the_dba_has_made_is_kept(owner_url, indexing):
    """A valid index of the name is not made twice."""
    execute(owner_url, "CREATE INDEX CONCURRENTLY ix_items_price ON items (price)")
    before = fetch(owner_url, "SELECT to_regclass('ix_items_price')::oid")

    done = succeed(owner_url, "upgrade", "head", folder=indexing)

    assert "index_kept" in [event["event"] for event in events(done.stderr)]
    assert before == fetch(owner_url, "SELECT to_regclass('ix_items_price')::oid")


def test_an_index_takes_the_time_it_needs(owner_url, revisions):
    """The statement limit does not count for it, and its progress is told while it grows."""
    slowly = "SELECT length(pg_sleep(0.005)::text) + $1"
    function = f"CREATE FUNCTION slow(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS '{slowly}'"
    execute(as_role(owner_url, "postgres"), function)
    execute(owner_url, "INSERT INTO items (name) SELECT 'Kettle' FROM generate_series(1, 1000)")
    make = 'import sqlalchemy\ncreate_index_concurrently("ix_items_slow", "items", [sqlalchemy.text("slow(id)")])'
    add_revision(revisions, "9999", revises=HEAD, upgrade=make)

    done = succeed(owner_url, "upgrade", "head", folder=revisions, migration_statement_seconds=0.5)

    growing = [event for event in events(done.stderr) if event["event"] == "index_growing"]
    assert growing
    assert {"index", "phase", "phase_percent"} <= set(growing[0])
    assert any("building index" in event["phase"] for event in growing)
    # The limits hold again afterwards.
    assert [("9999",)] == fetch(owner_url, "TABLE alembic_version")


def test_an_index_goes_as_it_came(owner_url, indexing):
    """The way back drops it, concurrently, and may be gone twice."""
    succeed(owner_url, "upgrade", "head", folder=indexing)
    succeed(owner_url, "downgrade", HEAD, folder=indexing)

    assert [] == fetch(owner_url, VALIDITY)
