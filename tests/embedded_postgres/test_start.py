import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest

from app import embedded_postgres
from app.embedded_postgres.cluster import Cluster
from app.errors import StartupError
from tests.cluster import execute
from tests.migrations.alembic import copy_project, events, succeed
from tests.paths import ROOT
from tests.processes.server import eventually

_SERVE = """
import os, sys
from pathlib import Path
from app import embedded_postgres
from app.embedded_postgres.cluster import Cluster
from app.errors import StartupError
if len(sys.argv) > 2:
    # Done here and not by the caller, because an ordinary user may not be able to run this interpreter.
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[2]))
print(embedded_postgres.start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def _served(checkout: Path, user: str | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that uses the embedded PostgreSQL of the checkout until the block ends."""
    arguments: list[str] = []
    environment = dict(os.environ)
    if user:
        arguments = [str(pwd.getpwnam(user).pw_uid), str(pwd.getpwnam(user).pw_gid)]
        # This user cannot write coverage data.
        # HOME is another user's, which must not matter.
        environment = {"PATH": os.defpath, "HOME": "/root"}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, checkout / ".postgres", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.communicate()


def _run(checkout: Path, *ids: str) -> "subprocess.CompletedProcess[str]":
    """A process that starts the embedded PostgreSQL and ends at once."""
    return subprocess.run(
        [sys.executable, "-c", _SERVE, checkout / ".postgres", *ids],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT, env={"PATH": os.defpath},
    )  # fmt: skip


def _server(checkout: Path) -> int:
    return int((checkout / ".postgres" / "data" / "postmaster.pid").read_text().split()[0])


def _is_alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _wait_for_end(pid: int) -> None:
    """Wait until the server has ended, which is a moment after it has removed the file with its process id."""
    eventually(lambda: not _is_alive(pid), seconds=60, what=f"the end of server {pid}")


@pytest.mark.parametrize("user", [None, *(["nobody"] if os.geteuid() == 0 else [])])
def test_data_is_kept_after_a_restart_and_the_server_stops_with_its_process(checkout, user):
    """This holds for root and for an ordinary user."""
    if user:
        os.chown(checkout, pwd.getpwnam(user).pw_uid, -1)

    with _served(checkout, user) as (url, _):
        execute(url, "CREATE TABLE kept ()")
        first = _server(checkout)
    with _served(checkout, user) as (url, _):
        execute(url, "SELECT FROM kept")
        second = _server(checkout)

    _wait_for_end(first)
    _wait_for_end(second)


def test_data_is_kept_when_the_process_is_killed(checkout):
    """The server of a killed process keeps running. The next start stops it and uses its data."""
    with _served(checkout) as (url, process):
        execute(url, "CREATE TABLE kept ()")
        orphan = _server(checkout)
        process.kill()
    assert _is_alive(orphan)

    with _served(checkout) as (url, _):
        execute(url, "SELECT FROM kept")
        _wait_for_end(orphan)


def test_data_is_kept_when_process_and_server_are_killed(checkout):
    """The next start recovers the data."""
    with _served(checkout) as (url, process):
        execute(url, "CREATE TABLE kept ()")
        process.kill()
        os.kill(_server(checkout), signal.SIGKILL)

    with _served(checkout) as (url, _):
        execute(url, "SELECT FROM kept")


def test_two_processes_of_one_checkout_share_the_server(checkout):
    """A second process uses the running server, which stops with the last of them."""
    with _served(checkout) as (url, _):
        with _served(checkout) as (second_url, first):
            pass
        assert url == second_url
        execute(url, "SELECT 1")
        server = _server(checkout)

    _wait_for_end(server)
    assert 0 == first.returncode


def test_two_checkouts_have_separate_servers_and_data(checkout):
    """Both servers run at the same time."""
    for name in ("one", "two"):
        (checkout / name).mkdir()

    with _served(checkout / "one") as (one, _), _served(checkout / "two") as (two, _):
        execute(one, "CREATE TABLE apart ()")
        with pytest.raises(asyncpg.UndefinedTableError):
            execute(two, "SELECT FROM apart")


def test_other_processes_find_the_running_server(checkout):
    """A command can use the server that another process has started. Without one it says how to start it."""
    with _served(checkout) as (url, _):
        assert url == embedded_postgres.running_url(checkout / ".postgres")

    with pytest.raises(StartupError, match=r"does not run: start it with `make run` in another terminal, or set DATA"):
        embedded_postgres.running_url(checkout / ".postgres")


def test_a_warning_names_the_folder(checkout):
    """Without DATABASE_URL a service that starts says that it uses a private PostgreSQL, and where."""
    done = _run(checkout)

    assert 0 == done.returncode, done.stderr
    assert (
        f"DATABASE_URL is not set: a private PostgreSQL for development is started in {checkout / '.postgres'}."
        == done.stderr.strip()
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become another user.")
def test_a_user_without_a_passwd_entry_is_refused(checkout):
    """PostgreSQL's programs need the user's name; the sentence says what to do."""
    done = _run(checkout, "54321", "54321")

    assert (
        "StartupError: The user id 54321 has no entry in /etc/passwd, which PostgreSQL's programs need: "
        "add one, or set DATABASE_URL to postgresql://user:password@host:5432/name."
    ) in done.stderr


@pytest.mark.parametrize("name", ["long" * 30, "one,two"])
def test_a_path_that_a_socket_cannot_have_is_replaced(checkout, caplog, monkeypatch, name):
    """For a path that is too long or has a comma, a fixed folder below /var/tmp is used, and a log line says so."""
    folder = checkout / name / ".postgres"
    folder.parent.mkdir()

    fallback = embedded_postgres._usable_folder(folder)

    assert Path("/var/tmp") == fallback.parent
    assert fallback == embedded_postgres._usable_folder(folder)
    assert fallback != embedded_postgres._usable_folder(folder.with_name("other"))
    monkeypatch.setattr(Cluster, "start", lambda _: None)
    assert str(fallback) in embedded_postgres.start(folder).replace("%2F", "/")
    assert f"keeps its data in {fallback}" in caplog.text


@pytest.mark.skipif(
    os.geteuid() != 0, reason="PostgreSQL runs as the ordinary user itself, who can reach the checkout."
)
def test_a_folder_that_only_root_can_enter_is_replaced(checkout):
    """For a checkout that PostgreSQL's user cannot reach, a folder below /var/tmp is used."""
    checkout.chmod(0o700)

    assert Path("/var/tmp") == embedded_postgres._usable_folder(checkout / ".postgres").parent


def test_alembic_warns_when_it_uses_the_embedded_database(checkout):
    """A DATABASE_URL that is misspelt must not look like a migrated production. Its value is not shown."""
    copy_project(checkout)
    with _served(checkout):
        for command in (["upgrade", "head"], ["current"]):
            done = succeed(None, *command, folder=checkout, databse_url="postgresql://u:hunter2@production/main")
            warnings = [line["event"] for line in events(done.stderr) if line["level"] == "warning"]
            used = f"the private PostgreSQL for development in {checkout / '.postgres'} is used."
            assert ["setting_unknown", f"DATABASE_URL is not set: {used}"] == warnings
            assert "hunter2" not in done.stderr


def test_alembic_with_the_address_of_a_database_does_not_warn(checkout, database_url):
    """Neither with DATABASE_URL nor with MIGRATION_DATABASE_URL alone."""
    copy_project(checkout)
    for settings in ({"database_url": database_url}, {"migration_database_url": database_url}):
        done = succeed(None, "current", folder=checkout, **settings)
        assert [] == [line for line in events(done.stderr) if line["level"] == "warning"]
