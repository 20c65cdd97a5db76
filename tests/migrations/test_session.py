import asyncio
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app import NAME
from app.database.connection import Connection
from app.database_url import DatabaseUrl
from app.embedded_postgres.programs import account, identity
from app.errors import StartupError
from app.settings import Settings
from migrations import session
from tests.cluster import as_role, execute, throw_away_cluster
from tests.migrations.alembic import HEAD, VERSION_TABLE, add_revision, alembic, fetch, succeed
from tests.migrations.test_offline import run_script
from tests.programs import find
from tests.proxy import proxied


@contextmanager
def pgbouncer(url: str, mode: str, databases: str = "*") -> Iterator[str]:
    """A PgBouncer in front of this server, for these databases. Yields the URL that leads through it."""
    parts = urlsplit(url)
    server = parse_qs(parts.query)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "users").write_text(f'"{parts.username}" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{databases} = host={server['host'][0]} port={server['port'][0]}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
            f"auth_file = {folder / 'users'}\npool_mode = {mode}\nlogfile = {folder / 'log'}\n"
        )
        if user := account():
            os.chown(folder, user.pw_uid, user.pw_gid)
        process = subprocess.Popen(
            [find("pgbouncer"), folder / "pgbouncer.ini"], cwd="/", stderr=subprocess.DEVNULL, **identity()
        )
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, "PgBouncer has exited"
                    assert time.monotonic() < deadline, "PgBouncer does not listen"
                    time.sleep(0.05)
            yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pgbouncer_is_refused(empty_database_url, mode):
    """A connection through PgBouncer is refused in one sentence that says which setting to write."""
    with pgbouncer(empty_database_url, mode) as url:
        assert [(1,)] == fetch(url, "SELECT 1")
        done = alembic(url, "upgrade", "head")

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "MIGRATION_DATABASE_URL" in done.stderr
    assert [] == fetch(empty_database_url, "SELECT FROM pg_tables WHERE schemaname = 'public'")


def test_a_service_behind_pgbouncer_migrates_over_a_direct_connection(empty_database_url):
    """With DATABASE_POOLER=pgbouncer a migration needs MIGRATION_DATABASE_URL, and uses it."""
    through = "postgresql://postgres@127.0.0.1:1/nothing"
    refused = alembic(through, "upgrade", "head", database_pooler="pgbouncer")
    assert 1 == refused.returncode
    assert "MIGRATION_DATABASE_URL" in refused.stderr

    succeed(through, "upgrade", "head", database_pooler="pgbouncer", migration_database_url=empty_database_url)

    assert [(HEAD,)] == fetch(empty_database_url, f"TABLE {VERSION_TABLE}")


@pytest.mark.parametrize("password", ["100%", "%s%(here)s", "a@b/c:d?e#f", "p%41ss"])
def test_a_password_may_contain_any_character(own_cluster, password):
    """Characters with a meaning in a URL or a configuration file work when they are percent-encoded."""
    quoted = password.replace("'", "''")
    execute(own_cluster.url, f"CREATE ROLE migrator SUPERUSER LOGIN PASSWORD '{quoted}'")
    rules = own_cluster.data / "pg_hba.conf"
    rules.write_text("local all migrator scram-sha-256\n" + rules.read_text())
    execute(own_cluster.url, "SELECT pg_reload_conf()")
    encoded = "".join(f"%{byte:02X}" for byte in password.encode())

    done = succeed(as_role(own_cluster.url, f"migrator:{encoded}"), "current")

    assert HEAD in done.stdout


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://postgres:hunter2@127.0.0.1:1/samples", "Check that it runs, and the host and port"),
        ("postgresql://postgres:hunter2@127.0.0.1:1,127.0.0.2:1/samples", "Check that it runs, and the host and port"),
        ("postgresql://postgres:hunter2@nowhere.invalid/samples", "PostgreSQL cannot be reached"),
        (f"postgresql://postgres@{'hunter2' * 10}.invalid/samples", "PostgreSQL cannot be reached: Unicode"),
        ("postgresql://postgres:hunter2@/samples?host=/nowhere", "PostgreSQL cannot be reached"),
        ("postgresql://postgres:hunter2/3@127.0.0.1/samples", "must be a URL like"),
        ("postgresql://postgres:hunter2@127.0.0.1:port/samples", "must be a URL like"),
        ("mysql://postgres:hunter2@127.0.0.1/samples", "must be a URL like"),
    ],
)
def test_a_server_that_cannot_be_reached_is_reported_in_one_sentence(url, message):
    """The exit code is 1, and the message is one line without a traceback and without a part of the URL."""
    done = alembic(url, "upgrade", "head")

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines()), done.stderr
    assert message in done.stderr
    assert not [part for part in ("hunter", "127.0.0", "nowhere", "samples") if part in done.stderr]


def test_without_a_url_and_without_a_running_embedded_database_the_error_says_what_to_do(revisions_copy):
    """A command looks for the embedded database of its own folder, and says how to start it."""
    done = alembic(None, "upgrade", "head", folder=revisions_copy)

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines()), done.stderr
    assert "does not run: start it with `make run` in another terminal, or set DATABASE_URL" in done.stderr


def test_commands_of_the_tests_leave_the_developer_s_database_alone():
    """Without a URL they would use the one that a `make run` in this checkout serves."""
    with pytest.raises(AssertionError, match="Name a URL, or the folder of a copy"):
        alembic(None, "current")


def test_a_refused_connection_is_reported_in_one_sentence(own_cluster):
    """For a wrong password, an unknown role or an unknown database it is PostgreSQL's message, without any name."""
    execute(own_cluster.url, "CREATE ROLE migrator LOGIN PASSWORD 'right'")
    rules = own_cluster.data / "pg_hba.conf"
    rules.write_text("local all migrator scram-sha-256\n" + rules.read_text())
    execute(own_cluster.url, "SELECT pg_reload_conf()")

    for url, message in [
        (as_role(own_cluster.url, "migrator:hunter2"), "password authentication failed"),
        (as_role(own_cluster.url, "nobodyx"), 'role "…" does not exist'),
        (own_cluster.url.replace("/postgres?", "/nodb?"), 'database "…" does not exist'),
    ]:
        done = alembic(url, "upgrade", "head")
        assert 1 == done.returncode
        assert 1 == len(done.stderr.splitlines()), done.stderr
        assert message in done.stderr
        assert not [part for part in ("hunter2", "migrator:", '"migrator', "nobodyx", "nodb") if part in done.stderr]


@pytest.mark.needs("pgbouncer")
def test_a_pooler_that_refuses_the_login_does_not_get_a_name_shown(empty_database_url):
    """It repeats the database without quotation marks."""
    with pgbouncer(empty_database_url, "transaction", databases="other") as url:
        done = alembic(url, "upgrade", "head")

    assert "Error: PostgreSQL refused the migration's connection: no such database: …." == done.stderr.strip()


@pytest.mark.needs("pg_trgm")
def test_a_role_without_ddl_cannot_migrate(database_url):
    """The error of the service's own role is PostgreSQL's message, without a traceback."""
    done = alembic(database_url, "downgrade", "base")

    assert 1 == done.returncode
    # The newest revision decides which statement is the first one that fails.
    message = f"permission denied for table {VERSION_TABLE}|must be owner of "
    assert re.search(message, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


async def test_connecting_has_a_timeout(empty_database_url, monkeypatch):
    """A server that accepts the connection and never answers is an error after CONNECT_SECONDS."""
    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.3)
    async with proxied(empty_database_url) as proxy:
        proxy.freeze()
        with pytest.raises(StartupError, match=r"did not answer the migration's connection within 0\.3 s"):
            await session.open_connection(DatabaseUrl.parse(proxy.url))


SETTING_UP = [b"pg_backend_pid()", b"tcp_keepalives_idle", b"default_transaction_isolation"]
"""Parts of the statements that set every connection up, in their order."""


@pytest.mark.parametrize("statement", [*SETTING_UP, b"lock_timeout"])
async def test_a_connection_that_breaks_at_first_is_reported_in_one_sentence(empty_database_url, statement):
    """PostgreSQL may end while the new connection is set up. The error says to run the command again."""
    async with proxied(empty_database_url) as proxy:
        settings = Settings.load(_env_file=None, migration_database_url=proxy.url)
        proxy.lose_answers(statement, "cut")
        with pytest.raises(
            StartupError, match=r"^The migration's connection to PostgreSQL failed: .*\. Run the command"
        ):
            async with session.connect(settings):
                pass

    assert 1 == proxy.answers_lost


async def test_a_connection_that_breaks_before_its_first_use_is_reported_in_one_sentence(settings, monkeypatch):
    """SQLAlchemy runs statements of its own on a new connection."""
    monkeypatch.setattr(Connection, "add_log_listener", lambda self, _: self.terminate())

    with pytest.raises(StartupError, match=r"^The migration's connection to PostgreSQL failed: .*\. Run the command"):
        async with session.connect(settings):
            pass


@pytest.mark.parametrize("statement", SETTING_UP)
async def test_a_connection_that_is_silent_at_first_is_closed(empty_database_url, monkeypatch, statement):
    """The statements that set it up have a timeout. A connection that cannot be used does not stay open."""
    monkeypatch.setattr(session, "CONNECT_SECONDS", 1)
    async with proxied(empty_database_url) as proxy, asyncio.timeout(30):
        proxy.lose_answers(statement, "silent")
        with pytest.raises(StartupError, match=r"did not answer the migration's connection within 1 s"):
            await session.open_connection(DatabaseUrl.parse(proxy.url))
        observer = await asyncpg.connect(empty_database_url)
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
        while await observer.fetchval(count, f"{NAME} migrations"):  # noqa: ASYNC110  # the server sets no event
            await asyncio.sleep(0.02)
        await observer.close()


async def test_a_migration_needs_a_server_that_takes_writes(empty_database_url):
    """Whatever kind of server the URL wants. The error says what to write."""
    name = urlsplit(empty_database_url).path[1:]
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    await asyncio.to_thread(execute, empty_database_url, read_only)
    for parameter in ("", "&target_session_attrs=any"):
        with pytest.raises(StartupError, match=r"need a server that takes writes.*: set MIGRATION_DATABASE_URL or"):
            await session.open_connection(DatabaseUrl.parse(f"{empty_database_url}{parameter}"))


async def test_a_migration_has_its_own_application_name(empty_database_url):
    """The migration's connections can be found in pg_stat_activity by application_name."""
    connection = await session.open_connection(DatabaseUrl.parse(empty_database_url))
    assert f"{NAME} migrations" == await connection.fetchval("SHOW application_name")
    await connection.close()


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_the_isolation_level_of_a_migration_is_read_committed(empty_database_url, revisions_copy, level):
    """A stricter default of the database does not apply to the revisions, nor to an SQL script."""
    url = empty_database_url
    execute(url, f"ALTER DATABASE {urlsplit(url).path[1:]} SET default_transaction_isolation = '{level}'")
    note = "op.execute(\"CREATE TABLE noted AS SELECT current_setting('transaction_isolation') AS level\")"
    add_revision(revisions_copy, "9999", revises=HEAD, upgrade=note, downgrade='op.execute("DROP TABLE noted")')

    succeed(url, "upgrade", "head", folder=revisions_copy)
    assert [("read committed",)] == fetch(url, "TABLE noted")

    succeed(url, "downgrade", HEAD, folder=revisions_copy)
    script = succeed(None, "upgrade", f"{HEAD}:9999", "--sql", folder=revisions_copy).stdout
    assert 0 == run_script(url, script).returncode
    assert [("read committed",)] == fetch(url, "TABLE noted")


@pytest.mark.parametrize("command", ["current", "check"])
def test_a_role_that_may_not_read_the_version_table_gets_one_sentence(empty_database_url, command):
    """It says what to grant, and that is enough. A schema without USAGE is not taken for an empty one."""
    succeed(empty_database_url, "upgrade", "head")
    execute(empty_database_url, "DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN")
    execute(empty_database_url, "REVOKE ALL ON SCHEMA public FROM PUBLIC")

    done = alembic(as_role(empty_database_url, "stranger"), command)

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines()), done.stderr
    sentence, _, grants = done.stderr.strip().rstrip(".").partition(", run ")
    assert sentence.startswith(f"Error: The role stranger may not read {VERSION_TABLE}")
    assert f"GRANT USAGE ON SCHEMA public TO stranger; GRANT SELECT ON public.{VERSION_TABLE} TO stranger" == grants

    execute(empty_database_url, grants)
    assert HEAD in succeed(as_role(empty_database_url, "stranger"), "current").stdout


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"migration_lock_seconds": 1}, "less than 1 (DATABASE_WAIT_SECONDS"),
        ({"migration_lock_seconds": 0.2, "database_wait_seconds": 0.2}, "less than 0.2 (DATABASE_WAIT_SECONDS"),
    ],
)
def test_a_lock_timeout_that_requests_cannot_outwait_is_refused(monkeypatch, settings, limit):
    """One sentence names the setting and its limit. The defaults of the others apply."""
    for name, value in settings.items():
        monkeypatch.setenv(name.upper(), str(value))
    loaded = Settings.load(_env_file=None)

    with pytest.raises(StartupError, match=f"^MIGRATION_LOCK_SECONDS is .*{re.escape(limit)}"):
        session.check_lock_seconds(loaded)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 0.2), ({"migration_lock_seconds": 0.9}, 0.5), ({"database_statement_seconds": 1}, 0.1),
        ({"database_statement_seconds": 60, "migration_lock_seconds": 0.9}, 0.9),
        ({"database_statement_seconds": 2, "migration_lock_seconds": 0.1}, 0.1),
        ({"database_wait_seconds": 0.2}, 0.1), ({"database_wait_seconds": 0.3}, 0.15),
        ({"database_wait_seconds": 0.3, "migration_lock_seconds": 0.2}, 0.2),
        ({"database_statement_seconds": 0.001}, 0.001), ({"migration_lock_seconds": 0.001}, 0.001),
    ],
)  # fmt: skip
def test_a_migration_waits_at_most_half_the_time_of_a_search_for_a_lock(settings, seconds):
    """Nor does the default outlast a wait for a connection. It is never 0, which PostgreSQL takes for no limit."""
    loaded = Settings.load(_env_file=None, **settings)
    session.check_lock_seconds(loaded)

    assert seconds == session.lock_wait_seconds(loaded)
    assert "lock_timeout', '0ms'" not in session.timeouts(
        lock_seconds=session.lock_wait_seconds(loaded), statement_seconds=1
    )


async def test_a_short_time_for_statements_shortens_the_lock_timeout(empty_database_url):
    """DATABASE_STATEMENT_SECONDS alone is no reason to refuse a migration."""
    settings = Settings.load(_env_file=None, migration_database_url=empty_database_url, database_statement_seconds=1)

    async with session.connect(settings) as connection:
        assert "100ms" == (await connection.exec_driver_sql("SHOW lock_timeout")).scalar()
    done = await asyncio.to_thread(succeed, empty_database_url, "upgrade", "head", database_statement_seconds=1)
    assert "revision_finished" in done.stderr


def test_a_migration_with_such_a_lock_timeout_does_not_start():
    """The command fails before it connects, and `--sql` writes nothing."""
    for arguments in (["upgrade", "head"], ["upgrade", "head", "--sql"]):
        done = alembic("postgresql://postgres@127.0.0.1:1/samples", *arguments, migration_lock_seconds=1)
        assert (1, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith("Error: MIGRATION_LOCK_SECONDS is 1, and must be less than 1 ")


async def test_both_ends_probe_the_connection():
    """A build can take hours without a byte on the connection: probes keep it open, and detect a dead host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with throw_away_cluster({"listen_addresses": "127.0.0.1", "port": str(port)}):
        connection: Any = await session.open_connection(
            DatabaseUrl.parse(f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
        )
        assert "30" == await connection.fetchval("SHOW tcp_keepalives_idle")
        ours = connection._transport.get_extra_info("socket")
        assert 1 == ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await connection.close()
