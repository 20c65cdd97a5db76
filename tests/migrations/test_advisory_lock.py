"""The tests hold the advisory lock on asyncpg connections; `alembic` runs in processes of its own."""

import asyncio

import asyncpg

from migrations.advisory_lock import LOCK_KEY
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
