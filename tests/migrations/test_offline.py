import asyncio
import subprocess

import asyncpg

from app.embedded_postgres.programs import find_binaries
from migrations.guard import LOCK_KEY
from tests.cluster import execute
from tests.migrations.alembic import HEAD, fetch, succeed
from tests.migrations.schema import dump


def script(*arguments):
    """The SQL that a command writes. It needs no database and no setting."""
    return succeed(None, *arguments, "--sql").stdout


def run(url, sql):
    """Run a script as the first line of it says."""
    return subprocess.run(
        [find_binaries() / "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url],
        input=sql, text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_script_up_makes_the_same_schema(empty_database_url):
    """What psql makes of `upgrade head --sql` is what `upgrade head` makes."""
    succeed(empty_database_url, "upgrade", "head")
    expected = dump(empty_database_url)
    succeed(empty_database_url, "downgrade", "base")
    execute(empty_database_url, "DROP TABLE alembic_version")

    done = run(empty_database_url, script("upgrade", "head"))

    assert 0 == done.returncode, done.stderr
    assert expected == dump(empty_database_url)
    assert [(HEAD,)] == fetch(empty_database_url, "TABLE alembic_version")


def test_the_script_down_leaves_nothing(owner_url):
    """`downgrade head:base --sql` takes all of it away again."""
    done = run(owner_url, script("downgrade", "head:base"))

    assert 0 == done.returncode, done.stderr
    left = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%'"
    assert [] == fetch(owner_url, left)
    assert [] == fetch(owner_url, "TABLE alembic_version")


def test_the_script_has_the_limits(empty_database_url):
    """It sets the limits of the settings, and those for an index made concurrently before and after it."""
    written = succeed(None, "upgrade", "head", "--sql", migration_lock_seconds=3, migration_statement_seconds=7).stdout

    limits = "set_config('lock_timeout', '3000ms', false), set_config('statement_timeout', '7000ms', false);"
    assert limits in written.partition("CREATE TABLE")[0]
    before, _, after = written.partition("CREATE INDEX CONCURRENTLY")
    assert "set_config('statement_timeout', '0ms', false);" in before
    assert limits in after


def test_the_script_stops_beside_another_migrator(empty_database_url):
    """It takes the migrators' lock, and where that is taken it stops before it changes anything."""

    async def run_beside_a_migrator():
        holder = await asyncpg.connect(empty_database_url)
        await holder.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        try:
            return await asyncio.to_thread(run, empty_database_url, script("upgrade", "head"))
        finally:
            await holder.close()

    done = asyncio.run(run_beside_a_migrator())

    assert 3 == done.returncode
    assert "Another migration is still at work." in done.stderr
    assert [] == fetch(empty_database_url, "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace")
