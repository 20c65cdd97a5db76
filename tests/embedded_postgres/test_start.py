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
from tests.cluster import execute
from tests.paths import ROOT

_SERVE = """
import os, sys
from pathlib import Path
from app import embedded_postgres
if len(sys.argv) > 2:
    # Here and not by the caller: an ordinary user may be unable to reach this interpreter.
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[2]))
print(embedded_postgres.start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def _served(checkout: Path, user: str | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that uses the checkout's embedded PostgreSQL until the end of the block."""
    arguments: list[str] = []
    environment = dict(os.environ)
    if user:
        arguments = [str(pwd.getpwnam(user).pw_uid), str(pwd.getpwnam(user).pw_gid)]
        # Such a user cannot write its coverage either.
        environment = {"PATH": os.defpath}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, checkout / ".postgres", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.communicate()


def _server(checkout: Path) -> int:
    return int((checkout / ".postgres" / "data" / "postmaster.pid").read_text().split()[0])


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and is not yet collected does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("user", [None, *(["nobody"] if os.geteuid() == 0 else [])])
def test_data_is_kept_over_restarts_and_the_server_ends_with_its_process(checkout, user):
    """What was stored is there after a restart, for root as for an ordinary user, and no server stays behind."""
    if user:
        os.chown(checkout, pwd.getpwnam(user).pw_uid, -1)

    with _served(checkout, user) as (url, _):
        execute(url, "CREATE TABLE kept ()")
        first = _server(checkout)
    with _served(checkout, user) as (url, _):
        execute(url, "SELECT FROM kept")
        second = _server(checkout)

    assert not _is_alive(first)
    assert not _is_alive(second)


def test_data_is_kept_when_the_process_is_killed(checkout):
    """A killed process leaves its server behind; the next start stops that one and has the data."""
    with _served(checkout) as (url, process):
        execute(url, "CREATE TABLE kept ()")
        left = _server(checkout)
        process.kill()
    assert _is_alive(left)

    with _served(checkout) as (url, _):
        execute(url, "SELECT FROM kept")
        assert not _is_alive(left)


def test_data_is_kept_when_everything_is_killed(checkout):
    """After a crash of the process and its server the next start recovers the data."""
    with _served(checkout) as (url, process):
        execute(url, "CREATE TABLE kept ()")
        process.kill()
        os.kill(_server(checkout), signal.SIGKILL)

    with _served(checkout) as (url, _):
        execute(url, "SELECT FROM kept")


def test_two_processes_of_one_checkout_share_the_server(checkout):
    """A second process uses the running server, which ends with the last of them."""
    with _served(checkout) as (url, _):
        with _served(checkout) as (second_url, first):
            pass
        assert url == second_url
        execute(url, "SELECT 1")
        server = _server(checkout)

    assert not _is_alive(server)
    assert 0 == first.returncode


def test_two_checkouts_do_not_meet(checkout):
    """Two checkouts have a server each, at the same time, and each has its own data."""
    for name in ("one", "two"):
        (checkout / name).mkdir()

    with _served(checkout / "one") as (one, _), _served(checkout / "two") as (two, _):
        execute(one, "CREATE TABLE apart ()")
        with pytest.raises(asyncpg.UndefinedTableError):
            execute(two, "SELECT FROM apart")


@pytest.mark.parametrize("name", ["long" * 30, "one,two"])
def test_a_path_that_no_socket_can_have_is_left_for_one_that_can(checkout, caplog, name):
    """A path too long or with a comma leads to one place below /var/tmp, and a line says so."""
    folder = checkout / name / ".postgres"
    folder.parent.mkdir()

    instead = embedded_postgres._usable_folder(folder)

    assert Path("/var/tmp") == instead.parent
    assert instead == embedded_postgres._usable_folder(folder)
    assert instead != embedded_postgres._usable_folder(folder.with_name("other"))
    assert str(instead) in caplog.text


@pytest.mark.skipif(
    os.geteuid() != 0, reason="An ordinary user's PostgreSQL runs as that user, who reaches the checkout."
)
def test_root_s_private_folder_is_left_for_one_that_postgres_can_reach(checkout):
    """A checkout below a folder that only root may enter works as well."""
    checkout.chmod(0o700)

    assert Path("/var/tmp") == embedded_postgres._usable_folder(checkout / ".postgres").parent
