"""Throw-away PostgreSQL clusters for the tests, and databases in them."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil

from app.embedded_postgres.cluster import Cluster
from app.embedded_postgres.programs import account, find_binaries, identity, run
from tests.paths import ROOT
from tests.sample import table

ROLES = ROOT / "deploy" / "postgresql" / "roles.sql"

OWNER, APPLICATION = "items_owner", "items_app"
"""The role that owns the tables, and the one that the service uses."""

_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "timezone": "UTC"}


@contextmanager
def throw_away_cluster(
    options: Mapping[str, str] | None = None, *, standby_of: Cluster | None = None
) -> Iterator[Cluster]:
    """A running cluster in a folder of its own, gone at the end, even when this process is killed.

    Args:
        options: Settings of the server. They replace those that make tests fast.
        standby_of: The primary that it copies, and then follows by streaming replication.
    """
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    with _removed(folder):
        cluster = Cluster(folder, _OPTIONS | dict(options or {}))
        if standby_of:
            copy = ["pg_basebackup", f"--dbname={standby_of.url}", f"--pgdata={cluster.data}", "--write-recovery-conf"]
            copied = run([str(find_binaries() / copy[0]), *copy[1:], "--checkpoint=fast", "--no-sync"])
            assert 0 == copied.returncode, copied.stderr
        cluster.start()
        yield cluster


@contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Stop the cluster and remove its folder at the end.

    A separate process does it when its standard input ends. The system closes
    that input even when this process is killed.
    """
    if user := account():
        os.chown(folder, user.pw_uid, user.pw_gid)
    keeper = subprocess.Popen(
        ["sh", "-c", 'cat; "$0" stop --silent --mode=immediate --pgdata="$1/data" 2>/dev/null; rm -rf "$1"',
         find_binaries() / "pg_ctl", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        **identity(),
    )  # fmt: skip
    try:
        yield
    finally:
        keeper.communicate()


def execute(url: str, statement: str) -> None:
    """Run one statement, outside of any transaction."""

    async def connect_and_execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(connect_and_execute())


def create_samples(url: str) -> None:
    """Make the table of the tests' own resource (`tests/sample`)."""
    execute(url, table.CREATE)


def slow_down_creations(url: str, seconds: float = 0.02) -> None:
    """Make each INSERT of a sample take this long on the server, without using its CPU."""
    body = f"BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END"
    execute(url, f"CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    execute(url, "CREATE TRIGGER pause BEFORE INSERT ON samples FOR EACH ROW EXECUTE FUNCTION pause()")


def create_database(cluster: Cluster, name: str, template: str = "template0") -> str:
    """Make a database and return its URL. Copying the files of the template is faster (11 ms, not 17)."""
    execute(cluster.url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    return cluster.url.replace("/postgres?", f"/{name}?")


def as_role(url: str, role: str) -> str:
    """The URL for another role. These clusters trust everybody."""
    return re.sub(r"//\w+@", f"//{role}@", url, count=1)


def migrate_as_owner(url: str) -> None:
    """Set up a new database as docs/operations/roles.md says: roles, schema, and the roles again."""
    execute(url, ROLES.read_text())
    migrate(as_role(url, OWNER))
    execute(url, ROLES.read_text())


def migrate(url: str) -> None:
    """Bring a database to the newest schema, as an operator does.

    SCHEMA_OF names the folder of another release: the tests then run against its schema.
    """
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=True, cwd=os.environ.get("SCHEMA_OF", ROOT), stdin=subprocess.DEVNULL,
        env=os.environ | {"MIGRATION_DATABASE_URL": url},
    )  # fmt: skip


@contextmanager
def processes_stopped(cluster: Cluster) -> Iterator[None]:
    """Every process of the PostgreSQL server is stopped (SIGSTOP)."""
    postmaster = psutil.Process(int(Path(cluster.data, "postmaster.pid").read_text().split()[0]))
    server_processes = [postmaster, *postmaster.children(recursive=True)]
    for process in server_processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in server_processes:
            os.kill(process.pid, signal.SIGCONT)


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """No statement can read the table."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        runner.run(connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        try:
            yield
        finally:
            runner.run(connection.close())
