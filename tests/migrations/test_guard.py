"""Connections that hold locks are asyncpg's, opened by the tests; `alembic` runs in processes of its own."""

import asyncio
import json
import re

import asyncpg
import pytest

from migrations.guard import LOCK_KEY
from tests.migrations.alembic import HEAD, add_revision, alembic, fetch, finish, start, succeed
from tests.migrations.locks import blocking

ADD_COLUMN = 'op.execute("ALTER TABLE items ADD COLUMN colour text")'
DROP_COLUMN = 'op.execute("ALTER TABLE items DROP COLUMN colour")'


def events(stderr):
    """The log lines, which are JSON objects."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def names(stderr):
    """The log lines' events."""
    return [event["event"] for event in events(stderr)]


@pytest.fixture
async def holding(database_url):
    """A connection of the application that holds a lock on the items in a transaction it does not end."""
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "forgetful"})
    await connection.execute("BEGIN")
    await connection.execute(f"SELECT 'a long one', count(*) FROM items WHERE name <> '{'x' * 200}'")
    yield connection
    connection.terminate()


def test_five_migrators_started_together_migrate_once(empty_database_url):
    """One of them migrates, the others wait for it, find nothing to do, and succeed as well."""
    started = [start(empty_database_url, "upgrade", "head") for _ in range(5)]
    done = [finish(process) for process in started]

    assert [0] * 5 == [process.returncode for process in done]
    applied = [name for process in done for name in names(process.stderr) if name == "revision_started"]
    assert len(applied) == len(names(succeed(empty_database_url, "downgrade", "base").stderr)) / 2
    assert [] == [process.stderr for process in done if "Traceback" in process.stderr]


def test_a_database_at_head_is_left_alone(owner_url):
    """The command says that there is nothing to do. It takes no lock: it succeeds while another migrator holds it."""

    async def upgrade_beside_a_migrator():
        holder = await asyncpg.connect(owner_url)
        await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        try:
            return await asyncio.to_thread(alembic, owner_url, "upgrade", "head", migration_wait_seconds=1)
        finally:
            await holder.close()

    done = asyncio.run(upgrade_beside_a_migrator())

    assert 0 == done.returncode
    assert [("database_current", HEAD)] == [(event["event"], event["revision"]) for event in events(done.stderr)]


def test_a_database_that_is_ahead_is_left_alone(owner_url, revisions):
    """A release that is rolled back starts with the revisions it knows: it succeeds, says so, and changes nothing."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=ADD_COLUMN, downgrade=DROP_COLUMN)
    succeed(owner_url, "upgrade", "head", folder=revisions)

    done = succeed(owner_url, "upgrade", "head")

    assert ["database_ahead"] == names(done.stderr)
    assert [("9999",)] == fetch(owner_url, "TABLE alembic_version")


async def test_a_migrator_waits_for_another_one_only_so_long(empty_database_url):
    """It gives up with one sentence that names the process that holds the lock."""
    holder = await asyncpg.connect(empty_database_url, server_settings={"application_name": "the other one"})
    await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")

    done = await asyncio.to_thread(alembic, empty_database_url, "upgrade", "head", migration_wait_seconds=1.5)

    assert 1 == done.returncode
    assert "migration_waiting" in names(done.stderr)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: Another migration is still at work: ")
    assert f"process {holder.get_server_pid()} of user postgres (the other one), idle, " in last
    assert "Traceback" not in done.stderr
    await holder.close()


async def test_a_lock_is_tried_for_again(owner_url, holding, revisions):
    """A migration that meets a lock steps back, tries again, and succeeds once it is free."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=ADD_COLUMN, downgrade=DROP_COLUMN)
    process = start(owner_url, "upgrade", "head", folder=revisions, migration_lock_seconds=0.3)
    await blocking(holding)
    await asyncio.sleep(2)
    await holding.execute("COMMIT")
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    blocked = [event for event in events(done.stderr) if event["event"] == "migration_blocked"]
    assert len(blocked) >= 2
    pauses = {event["again_in_seconds"] for event in blocked}
    assert all(0.1 <= pause <= 0.5 for pause in pauses)
    assert f"process {holding.get_server_pid()}" in blocked[0]["blocked_by"]
    assert [("9999",)] == await asyncio.to_thread(fetch, owner_url, "TABLE alembic_version")


async def test_a_migration_gives_up_and_names_who_is_in_its_way(owner_url, holding, revisions):
    """Past its patience it fails with one sentence: process, user, state, age, and the beginning of its query."""
    add_revision(revisions, "9998", revises=HEAD, upgrade='op.execute("CREATE TABLE fine ()")')
    add_revision(revisions, "9999", revises="9998", upgrade=ADD_COLUMN)

    done = await asyncio.to_thread(
        alembic, owner_url, "upgrade", "head", folder=revisions, migration_lock_seconds=0.5, migration_wait_seconds=2
    )

    assert 1 == done.returncode
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: upgrade 9998 -> 9999 did not get its lock within 2 s and was given up.")
    assert re.search(
        rf"process {holding.get_server_pid()} of user items_app \(forgetful\), idle in transaction, \d+ s old, "
        r"query: SELECT 'a long one'[^…]{90,110}…\.$",
        error,
    ), error
    assert "Traceback" not in done.stderr
    # What came before is kept: each revision is a transaction of its own.
    assert [("9998",)] == await asyncio.to_thread(fetch, owner_url, "TABLE alembic_version")


async def test_requests_wait_no_longer_than_the_lock_timeout(owner_url, database_url, holding, revisions):
    """Who queues up behind a migration that waits is served as soon as it steps back."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=ADD_COLUMN)
    process = start(
        owner_url, "upgrade", "head", folder=revisions, migration_lock_seconds=0.5, migration_wait_seconds=5
    )
    reader = await asyncpg.connect(database_url)
    waits = []
    while process.poll() is None:
        started = asyncio.get_running_loop().time()
        await reader.fetch("SELECT FROM items LIMIT 1")
        waits.append(asyncio.get_running_loop().time() - started)
        await asyncio.sleep(0.02)
    await reader.close()
    await asyncio.to_thread(finish, process)

    assert max(waits) > 0.2, "the migration never waited for its lock"
    assert max(waits) < 1


def test_a_statement_has_its_time(owner_url, revisions):
    """One that runs too long is cancelled and rolled back, and the error names the setting and the statement."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=f'{ADD_COLUMN}\nop.execute("SELECT pg_sleep(30)")')

    done = alembic(owner_url, "upgrade", "head", folder=revisions, migration_statement_seconds=0.5)

    assert 1 == done.returncode
    error = done.stderr.splitlines()[-1]
    assert "upgrade" in error
    assert "MIGRATION_STATEMENT_SECONDS" in error
    assert "SELECT pg_sleep(30)" in error
    assert [(HEAD,)] == fetch(owner_url, "TABLE alembic_version")
    assert [] == fetch(owner_url, "SELECT FROM information_schema.columns WHERE column_name = 'colour'")


def test_a_revision_that_fails_is_told_in_one_sentence(owner_url, revisions):
    """The server's words and the statement, no traceback; nothing of the revision stays."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=f'{ADD_COLUMN}\nop.execute("ALTER TABLE items DROP size")')

    done = alembic(owner_url, "upgrade", "head", folder=revisions)

    assert 1 == done.returncode
    assert 'column "size" of relation "items" does not exist' in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [] == fetch(owner_url, "SELECT FROM information_schema.columns WHERE column_name = 'colour'")


async def test_a_connection_that_is_cut_is_told_in_one_sentence(owner_url, cluster, revisions):
    """When the migrating process is ended by the DBA, nothing stays, and the error says to run it again."""
    add_revision(revisions, "9999", revises=HEAD, upgrade=f'{ADD_COLUMN}\nop.execute("SELECT pg_sleep(4)")')
    process = start(owner_url, "upgrade", "head", folder=revisions)
    killer = await asyncpg.connect(cluster.url)
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(4)%'"
    async with asyncio.timeout(20):
        while not await killer.fetchval(kill):  # noqa: ASYNC110  # it is another process that is waited for
            await asyncio.sleep(0.05)
    await killer.close()
    done = await asyncio.to_thread(finish, process)

    assert 1 == done.returncode
    assert "was cut off and rolled back" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [(HEAD,)] == await asyncio.to_thread(fetch, owner_url, "TABLE alembic_version")
