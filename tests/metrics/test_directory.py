import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app import NAME
from app.errors import StartupError
from app.metrics import directory
from app.metrics.slot_files import SIZES
from tests.paths import ROOT

PREPARE = """
import os, sys
from app.metrics import directory
directory.prepare(sys.argv[1] if len(sys.argv) > 1 else None)
assert "prometheus_client" not in sys.modules
print(os.environ.get("PROMETHEUS_MULTIPROC_DIR"), flush=True)
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(directory.VARIABLE, "unset")


def test_a_configured_directory_is_created_and_emptied(tmp_path: Path):
    """The metrics files of an earlier start are deleted; every other file is kept, also a database of someone else."""
    folder = tmp_path / "deep" / "metrics"
    folder.mkdir(parents=True)
    for kind in SIZES:
        (folder / f"{kind}_0.db").touch()
        (folder / f"{kind}_12.db-new").touch()
    for name in ("readiness", "auth-keys", "auth-keys-fetch"):
        (folder / f"{name}.report").touch()
    (folder / directory.KEYS_FILE).touch()
    (folder / directory.EVENTS_FILE).touch()
    (folder / f"{directory.EVENTS_FILE}.1234").touch()
    others = {"note.txt", "orders.db", "counter_of_sheep.db", "history.db-wal"}
    for name in others:
        (folder / name).touch()

    directory.prepare(str(folder))

    assert str(folder) == os.environ[directory.VARIABLE]
    assert others == {file.name for file in folder.iterdir()}


def test_a_directory_that_another_server_uses_is_refused(tmp_path: Path):
    """While a master runs, a second one with the same METRICS_DIRECTORY does not start, and deletes no file."""
    command = [sys.executable, "-c", PREPARE + "sys.stdin.read()", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout
        master.stdout.readline()
        (tmp_path / "counter_0.db").touch()
        with pytest.raises(StartupError, match=f"METRICS_DIRECTORY {tmp_path} is used by another running server"):
            directory.prepare(str(tmp_path))
        master.communicate()

    assert (tmp_path / "counter_0.db").exists()
    directory.prepare(str(tmp_path))
    assert not (tmp_path / "counter_0.db").exists()


@pytest.mark.parametrize("kind", ["file", "below a file", "no place for a folder", "no file can be made"])
def test_a_configured_directory_that_cannot_be_used_is_refused(tmp_path: Path, kind: str):
    """Without it each worker would count alone, and a client could send its limit to each worker."""
    (tmp_path / "file").touch()
    folder = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "metrics",
        "no place for a folder": Path("/proc/nowhere"),
        "no file can be made": Path("/proc/self"),
    }[kind]

    with pytest.raises(StartupError, match=rf"^METRICS_DIRECTORY {folder} cannot be used \(\w.*\): write a folder "):
        directory.prepare(str(folder))

    assert directory.VARIABLE not in os.environ


def test_an_unusable_default_directory_does_not_prevent_the_start(monkeypatch: pytest.MonkeyPatch):
    """Nobody has asked for it. A warning says that each worker counts alone."""
    monkeypatch.setattr(directory, "temporary_folder", lambda: Path("/proc"))

    with capture_logs() as lines:
        directory.prepare(None)

    assert directory.VARIABLE not in os.environ
    assert [("warning", "metrics_directory_unusable")] == [(line["log_level"], line["event"]) for line in lines]


def test_the_default_directory_is_removed_at_the_end():
    """The master removes its folder, a forked child does not, and the master does not import `prometheus_client`."""
    code = PREPARE + "assert os.path.isdir(os.environ['PROMETHEUS_MULTIPROC_DIR'])\n"
    code += "if not (child := os.fork()): raise SystemExit\nos.waitpid(child, 0)\n"
    code += "assert os.path.isdir(os.environ['PROMETHEUS_MULTIPROC_DIR'])\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
    )

    assert f"{NAME}-metrics-" in done.stdout
    assert not Path(done.stdout.strip()).exists()


def test_the_folder_of_a_killed_master_is_removed_by_the_next():
    """A starting master removes the folders of killed masters, and keeps those of running ones."""
    waiting = [sys.executable, "-c", PREPARE + "sys.stdin.read()"]
    masters = [
        subprocess.Popen(waiting, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    folders = [Path(master.stdout.readline().strip()) for master in masters if master.stdout]
    masters[0].kill()
    masters[0].communicate()
    assert folders[0].exists()

    subprocess.run([sys.executable, "-c", PREPARE], cwd=ROOT, capture_output=True, timeout=10, check=True)

    assert [False, True] == [folder.exists() for folder in folders]
    masters[1].communicate()
    assert not folders[1].exists()
