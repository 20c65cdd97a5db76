"""The tests hold locks on asyncpg connections; `alembic` runs in processes of its own."""

import asyncio
import re
from unittest.mock import Mock, create_autospec

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import StartupError
from app.settings import Settings
from migrations.lock_wait_budget import LockWaitBudget
from migrations.monitor import Monitor
from migrations.retries import run_with_retries
from tests.migrations.alembic import HEAD, VERSION_TABLE, add_revision, alembic, events, fetch, finish, start
from tests.migrations.locks import wait_until_blocking
from tests.proxy import proxied

ADD_COLUMN = 'op.execute("ALTER TABLE samples ADD COLUMN colour text")'
DROP_COLUMN = 'op.execute("ALTER TABLE samples DROP COLUMN colour")'


@pytest.fixture
async def blocker(database_url):
    """A connection of the service's role that keeps a transaction open which has read the samples."""
    # Without the timeout of the role, which ends the transaction while `alembic` starts on a busy machine.
    settings = {"application_name": "report", "idle_in_transaction_session_timeout": "0"}
    connection = await asyncpg.connect(database_url, server_settings=settings)
    await connection.execute("BEGIN")
    await connection.execute(f"SELECT 'a long one', count(*) FROM samples WHERE name <> '{'x' * 200}'")
    yield connection
    connection.terminate()


async def test_a_migration_is_retried_until_it_gets_its_lock(owner_url, blocker, revisions_copy):
    """After a lock timeout the migration pauses and retries. It succeeds once the lock is free."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=ADD_COLUMN, downgrade=DROP_COLUMN)
    process = start(owner_url, "upgrade", "head", folder=revisions_copy, migration_lock_seconds=0.3)
    await wait_until_blocking(blocker)
    await asyncio.sleep(2)
    await blocker.execute("COMMIT")
    done = await asyncio.to_thread(finish, process)

    assert 0 == done.returncode, done.stderr
    blocked = [event for event in events(done.stderr) if event["event"] == "migration_blocked"]
    assert len(blocked) >= 2
    for number, event in enumerate(blocked):
        assert 0.1 <= event["retry_in_seconds"] / 2**number <= 0.5, "the pauses do not double"
    assert f"process {blocker.get_server_pid()}" in blocked[0]["blocked_by"]
    assert [("9999",)] == await asyncio.to_thread(fetch, owner_url, f"TABLE {VERSION_TABLE}")


async def test_a_migration_that_never_gets_its_lock_names_the_blocking_process(owner_url, blocker, revisions_copy):
    """After MIGRATION_WAIT_SECONDS it fails with one sentence: process, user, state, age and the start of its query."""
    add_revision(revisions_copy, "9998", revises=HEAD, upgrade='op.execute("CREATE TABLE fine ()")')
    add_revision(revisions_copy, "9999", revises="9998", upgrade=ADD_COLUMN)

    done = await asyncio.to_thread(
        alembic,
        owner_url,
        "upgrade",
        "head",
        folder=revisions_copy,
        migration_wait_seconds=2,
    )

    assert 1 == done.returncode
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: upgrade 9998 -> 9999 did not get its lock within 2 s")
    assert re.search(
        rf"process {blocker.get_server_pid()} of user items_app \(report\), idle in transaction, \d+ s old, "
        r"query: SELECT 'a long one'[^…]{90,110}…\.$",
        error,
    ), error
    assert "Traceback" not in done.stderr
    # Each revision is a transaction of its own, so the earlier one stays.
    assert [("9998",)] == await asyncio.to_thread(fetch, owner_url, f"TABLE {VERSION_TABLE}")


async def test_the_time_of_statements_is_not_subtracted(owner_url, blocker, revisions_copy):
    """Only waits and pauses count for MIGRATION_WAIT_SECONDS. Other statements of the attempt do not."""
    slow = f'op.execute("SELECT pg_sleep(1.5)")\n{ADD_COLUMN}'
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=slow)

    done = await asyncio.to_thread(
        alembic, owner_url, "upgrade", "head", folder=revisions_copy, migration_wait_seconds=1
    )

    assert 1 == done.returncode
    blocked = [event for event in events(done.stderr) if event["event"] == "migration_blocked"]
    assert blocked, "there was no second attempt"
    assert 0.8 == blocked[0]["remaining_wait_seconds"]


async def test_requests_wait_no_longer_than_the_lock_timeout(owner_url, database_url, blocker, revisions_copy):
    """A request that queues behind a waiting migration is answered after the lock timeout."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=ADD_COLUMN)
    process = start(
        owner_url, "upgrade", "head", folder=revisions_copy, migration_lock_seconds=0.5, migration_wait_seconds=3
    )
    reader = await asyncpg.connect(database_url)
    waits = []
    while process.poll() is None:
        started = asyncio.get_running_loop().time()
        await reader.fetch("SELECT FROM samples LIMIT 1")
        waits.append(asyncio.get_running_loop().time() - started)
        await asyncio.sleep(0.02)
    await reader.close()
    await asyncio.to_thread(finish, process)

    assert max(waits) > 0.2, "the migration never waited for its lock"
    assert max(waits) < 1


def test_a_statement_that_runs_too_long_is_cancelled(owner_url, revisions_copy):
    """The step is rolled back. The error names the setting and the statement."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=f'{ADD_COLUMN}\nop.execute("SELECT pg_sleep(30)")')

    done = alembic(owner_url, "upgrade", "head", folder=revisions_copy, migration_statement_seconds=0.5)

    assert 1 == done.returncode
    error = done.stderr.splitlines()[-1]
    assert "upgrade" in error
    assert "MIGRATION_STATEMENT_SECONDS" in error
    assert "SELECT pg_sleep(30)" in error
    assert [(HEAD,)] == fetch(owner_url, f"TABLE {VERSION_TABLE}")
    assert [] == fetch(owner_url, "SELECT FROM information_schema.columns WHERE column_name = 'colour'")


def test_a_revision_that_fails_is_reported_in_one_sentence(owner_url, revisions_copy):
    """The sentence has PostgreSQL's message and the statement, and no traceback. The revision is rolled back."""
    add_revision(
        revisions_copy, "9999", revises=HEAD, upgrade=f'{ADD_COLUMN}\nop.execute("ALTER TABLE samples DROP size")'
    )

    done = alembic(owner_url, "upgrade", "head", folder=revisions_copy)

    assert 1 == done.returncode
    assert 'column "size" of relation "samples" does not exist' in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [] == fetch(owner_url, "SELECT FROM information_schema.columns WHERE column_name = 'colour'")


async def test_a_broken_connection_is_reported_in_one_sentence(owner_url, cluster, revisions_copy):
    """If a DBA terminates the process, the step is rolled back, and the error says to run it again."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=f'{ADD_COLUMN}\nop.execute("SELECT pg_sleep(4)")')
    process = start(owner_url, "upgrade", "head", folder=revisions_copy)
    killer = await asyncpg.connect(cluster.url)
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(4)%'"
    async with asyncio.timeout(20):
        while not await killer.fetchval(kill):  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.05)
    await killer.close()
    done = await asyncio.to_thread(finish, process)

    assert 1 == done.returncode
    assert "was rolled back: the connection broke" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [(HEAD,)] == await asyncio.to_thread(fetch, owner_url, f"TABLE {VERSION_TABLE}")


async def test_a_connection_that_breaks_after_a_lock_timeout_is_reported_in_one_sentence(
    owner_url, blocker, revisions_copy
):
    """PostgreSQL may end the connection before the attempt is rolled back."""
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=ADD_COLUMN)
    async with proxied(owner_url) as proxy:
        process = start(
            proxy.url,
            "upgrade",
            "head",
            folder=revisions_copy,
            migration_lock_seconds=0.9,
            database_statement_seconds=10,
        )
        await wait_until_blocking(blocker)
        proxy.lose_answers(b"ROLLBACK", "cut")
        done = await asyncio.to_thread(finish, process)

    assert 1 == done.returncode
    assert f"upgrade {HEAD} -> 9999 was rolled back: the connection broke" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def lock_timeout(*, is_lost):
    """A lock timeout. SQLAlchemy says whether the connection was lost with it."""
    timeout = create_autospec(asyncpg.LockNotAvailableError, instance=True, sqlstate="55P03")
    return DBAPIError("", None, timeout, connection_invalidated=is_lost)


async def run(connection):
    """Run a migration on a connection of a test."""
    await run_with_retries(
        connection,
        Mock(),
        step_name=lambda: "upgrade",
        monitor=create_autospec(Monitor, instance=True),
        budget=LockWaitBudget(0),
        settings=Settings.load(_env_file=None),
    )


async def test_a_lost_connection_is_not_replaced():
    """A new connection would not hold the advisory lock, so the migration ends. PostgreSQL has rolled it back."""
    connection = create_autospec(AsyncConnection, instance=True)
    connection.run_sync.side_effect = lock_timeout(is_lost=True)

    with pytest.raises(StartupError, match="was rolled back: the connection broke"):
        await run(connection)
    connection.execute.assert_not_called()


@pytest.mark.parametrize("error", [DBAPIError("", None, Exception()), ConnectionResetError()])
@pytest.mark.parametrize("statement", ["rollback", "execute", "commit"])
async def test_a_connection_that_breaks_before_the_next_attempt_is_reported_in_one_sentence(statement, error):
    """The timeouts are set again before it."""
    connection = create_autospec(AsyncConnection, instance=True)
    connection.run_sync.side_effect = lock_timeout(is_lost=False)
    getattr(connection, statement).side_effect = error

    with pytest.raises(StartupError, match="was rolled back: the connection broke"):
        await run(connection)
