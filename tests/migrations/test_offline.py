import asyncio
import subprocess

import asyncpg

from app.embedded_postgres.programs import find_binaries
from migrations.advisory_lock import LOCK_KEY
from tests.cluster import execute
from tests.migrations.alembic import HEAD, VERSION_TABLE, add_revision, fetch, succeed
from tests.migrations.schema import dump


def script(*arguments):
    """The SQL that a command writes. It needs no database and no settings."""
    return succeed(None, *arguments, "--sql").stdout


def run_script(url, sql):
    """Run a script as its first line says."""
    return subprocess.run(
        [find_binaries() / "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url],
        input=sql, text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_upgrade_script_makes_the_same_schema(empty_database_url):
    """The SQL of `upgrade head --sql`, run by psql, makes the same schema as `upgrade head`."""
    succeed(empty_database_url, "upgrade", "head")
    expected = dump(empty_database_url)
    succeed(empty_database_url, "downgrade", "base")
    execute(empty_database_url, f"DROP TABLE {VERSION_TABLE}")

    done = run_script(empty_database_url, script("upgrade", "head"))

    assert 0 == done.returncode, done.stderr
    assert expected == dump(empty_database_url)
    assert [(HEAD,)] == fetch(empty_database_url, f"TABLE {VERSION_TABLE}")


def test_the_downgrade_script_drops_everything(owner_url):
    """The SQL of `downgrade head:base --sql` drops all tables but the version table, and empties that."""
    done = run_script(owner_url, script("downgrade", "head:base"))

    assert 0 == done.returncode, done.stderr
    left = fetch(owner_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {(VERSION_TABLE,), ("samples",)} == set(left)  # the tests have made the samples
    assert [] == fetch(owner_url, f"TABLE {VERSION_TABLE}")


def test_the_script_sets_the_timeouts(revisions_copy):
    """It sets the timeouts of the settings at its start and after each concurrent index build, which has none."""
    add_revision(revisions_copy, "9998", revises=HEAD, upgrade='op.execute("CREATE TABLE new (id int)")')
    index = 'create_index_concurrently("ix_new_id", "new", ["id"])'
    add_revision(revisions_copy, "9999", revises="9998", upgrade=index)
    settings = {"migration_lock_seconds": 0.3, "migration_statement_seconds": 7}
    written = succeed(None, "upgrade", f"{HEAD}:head", "--sql", folder=revisions_copy, **settings).stdout

    timeouts = "set_config('lock_timeout', '300ms', false), set_config('statement_timeout', '7000ms', false);"
    assert timeouts in written.partition("CREATE TABLE")[0]
    before, _, after = written.partition("CREATE INDEX CONCURRENTLY")
    assert "set_config('lock_timeout', '0ms', false), set_config('statement_timeout', '0ms', false);" in before
    assert timeouts in after


def test_the_script_stops_while_another_migration_runs(empty_database_url):
    """It takes the advisory lock of the migrations. If that is taken, it stops before it changes anything."""

    async def run_beside_another_migration():
        holder = await asyncpg.connect(empty_database_url)
        await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        try:
            return await asyncio.to_thread(run_script, empty_database_url, script("upgrade", "head"))
        finally:
            await holder.close()

    done = asyncio.run(run_beside_another_migration())

    assert 3 == done.returncode
    assert "Another migration is running." in done.stderr
    assert [] == fetch(empty_database_url, "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace")
