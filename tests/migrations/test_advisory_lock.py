"""The tests hold the advisory lock on asyncpg connections; `alembic` runs in processes of its own."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from app import NAME
from migrations.advisory_lock import LOCK_KEY
from tests.cluster import ROLES, as_role, execute
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
from tests.migrations.versions import REVISIONS

ADD_COLUMN = 'op.execute("ALTER TABLE samples ADD COLUMN colour text")'
DROP_COLUMN = 'op.execute("ALTER TABLE samples DROP COLUMN colour")'


def test_five_migrators_started_together_migrate_once(empty_database_url):
    """One of them migrates. The others wait, find nothing to do, and succeed."""
    started = [start(empty_database_url, "upgrade", "head") for _ in range(5)]
    done = [finish(process) for process in started]

    assert [0] * 5 == [process.returncode for process in done]
    applied = [name for process in done for name in event_names(process.stderr) if name == "revision_started"]
    assert len(applied) == len(event_names(succeed(empty_database_url, "downgrade", "base").stderr)) / 2
    assert [] == [process.stderr for process in done if "Traceback" in process.stderr]


def test_a_database_at_the_head_is_not_changed(owner_url):
    """The command says that there is nothing to do, and succeeds while another migration holds the lock."""

    async def upgrade_beside_another_migration():
        holder = await asyncpg.connect(owner_url)
        await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        try:
            return await asyncio.to_thread(alembic, owner_url, "upgrade", "head", migration_wait_seconds=1)
        finally:
            await holder.close()

    done = asyncio.run(upgrade_beside_another_migration())

    assert 0 == done.returncode
    assert [("database_current", HEAD)] == [(event["event"], event["revision"]) for event in events(done.stderr)]


def test_a_database_that_is_ahead_is_not_changed(owner_url, revisions_copy):
    """After a rollback, `alembic upgrade head` of the older release succeeds, says so, and changes nothing."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=ADD_COLUMN, downgrade=DROP_COLUMN)
    succeed(owner_url, "upgrade", "head", folder=revisions_copy)

    done = succeed(owner_url, "upgrade", "head")

    assert ["database_ahead"] == event_names(done.stderr)
    assert [("9999",)] == fetch(owner_url, f"TABLE {VERSION_TABLE}")


async def test_a_migration_waits_while_another_one_runs_a_statement(empty_database_url):
    """An index build of the other one may take hours: this one waits longer than MIGRATION_WAIT_SECONDS."""
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
    building = asyncio.create_task(holder.execute("SELECT pg_sleep(600)"))
    process = start(empty_database_url, "upgrade", "head", migration_wait_seconds=0.1)
    assert process.stderr
    assert "migration_waiting" in await asyncio.to_thread(process.stderr.readline)
    await asyncio.sleep(2)
    building.cancel()
    await asyncio.wait([building])
    await holder.close()
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    assert "migration_waiting" not in done.stderr, "it is logged more than once"


async def test_a_migration_that_waits_keeps_no_connection(empty_database_url):
    """Only for an attempt it has one: those that run have few."""
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
    process = start(empty_database_url, "upgrade", "head", migration_wait_seconds=20)
    connected = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME} migrations'"
    async with asyncio.timeout(60):
        for expected in (1, 0, 1, 0):
            while expected != await holder.fetchval(connected):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    await holder.close()
    assert 0 == (await asyncio.to_thread(finish, process)).returncode


def test_six_migrations_succeed_with_four_connections(empty_database_url, revisions_copy):
    """Each pod of a rollout may migrate: the role of roles.sql has four connections, and a migration needs two."""
    execute(empty_database_url, ROLES.read_text())
    owner = as_role(empty_database_url, "items_owner")
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade='op.execute("SELECT pg_sleep(3)")')

    started = [start(owner, "upgrade", "head", folder=revisions_copy) for _ in range(6)]
    done = [finish(process, seconds=120) for process in started]

    assert [0] * 6 == [process.returncode for process in done], [process.stderr for process in done]
    applied = [name for process in done for name in event_names(process.stderr) if name == "revision_started"]
    assert len(REVISIONS) + 1 == len(applied)
    assert [("9999",)] == fetch(owner, f"TABLE {VERSION_TABLE}")


@pytest.fixture
def limited_url(empty_database_url):
    """The URL of a database for a role that a test can limit."""
    execute(empty_database_url, "DROP ROLE IF EXISTS limited; CREATE ROLE limited LOGIN")
    execute(empty_database_url, f'GRANT ALL ON DATABASE "{urlsplit(empty_database_url).path[1:]}" TO limited')
    execute(empty_database_url, "ALTER SCHEMA public OWNER TO limited")
    yield as_role(empty_database_url, "limited")
    execute(empty_database_url, "ALTER ROLE limited CONNECTION LIMIT -1")


def test_a_migration_without_its_second_connection_runs(limited_url):
    """It says so: it cannot name what blocks it."""
    execute(limited_url, "SELECT 1")
    execute(as_role(limited_url, "postgres"), "ALTER ROLE limited CONNECTION LIMIT 1")

    done = succeed(limited_url, "upgrade", "head")

    unmonitored = [event for event in events(done.stderr) if event["event"] == "migration_unmonitored"]
    assert 1 == len(unmonitored)
    assert "too many connections for role" in unmonitored[0]["cause"]


async def test_a_migration_waits_for_a_connection(limited_url):
    """It tries again until one is free, for MIGRATION_WAIT_SECONDS at most. The error says what to do."""
    administrator = as_role(limited_url, "postgres")
    await asyncio.to_thread(execute, administrator, "ALTER ROLE limited CONNECTION LIMIT 0")
    failed = await asyncio.to_thread(alembic, limited_url, "upgrade", "head", migration_wait_seconds=1)

    assert 1 == failed.returncode
    assert ["connection_awaited"] == event_names(failed.stderr)
    last = failed.stderr.splitlines()[-1]
    assert 'too many connections for role "…"' in last
    assert "MIGRATION_WAIT_SECONDS" in last
    assert "Traceback" not in failed.stderr

    process = start(limited_url, "upgrade", "head")
    await asyncio.sleep(5)
    await asyncio.to_thread(execute, administrator, "ALTER ROLE limited CONNECTION LIMIT -1")
    done = await asyncio.to_thread(finish, process)
    assert 0 == done.returncode, done.stderr


async def test_a_migration_waits_for_another_one_for_a_limited_time(empty_database_url):
    """After MIGRATION_WAIT_SECONDS it fails with one sentence that names the process that holds the lock."""
    holder = await asyncpg.connect(empty_database_url, server_settings={"application_name": "the other one"})
    await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")

    done = await asyncio.to_thread(alembic, empty_database_url, "upgrade", "head", migration_wait_seconds=1.5)

    assert 1 == done.returncode
    assert "migration_waiting" in event_names(done.stderr)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: Another migration is running: ")
    assert f"process {holder.get_server_pid()} of user postgres (the other one), idle, " in last
    assert "Traceback" not in done.stderr
    await holder.close()
