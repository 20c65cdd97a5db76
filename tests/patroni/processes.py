"""Starts processes in a folder, and freezes and ends all that run there.

PostgreSQL leaves the session and the children of Patroni, and keeps its folder as its working directory.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from app.embedded_postgres.programs import account, identity
from tests.paths import ROOT


@contextmanager
def folder_of_processes() -> Iterator[Path]:
    """A folder of PostgreSQL's user. At the end its processes are killed and it is removed.

    A separate process does it when its standard input ends. The system closes that input even when this process is
    killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="patroni-"))
    own(folder)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.patroni.processes", folder],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        keeper.communicate()


def own(folder: Path) -> None:
    """Give the folder to PostgreSQL's user."""
    if user := account():
        os.chown(folder, user.pw_uid, user.pw_gid)


def start_in(folder: Path, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Start a program as PostgreSQL's user. Its output is appended to the file `log` in the folder."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, **identity(),
        )  # fmt: skip
    threading.Thread(target=process.wait, daemon=True).start()  # or it stays a zombie when it is killed


def kill_in(folder: Path) -> None:
    """End the folder's processes at once (SIGKILL), also those that they start meanwhile."""
    while processes := _running_in(folder):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)


@contextmanager
def frozen_in(folder: Path) -> Iterator[None]:
    """The folder's processes are stopped (SIGSTOP), and go on at the end of the block."""
    stopped: list[psutil.Process] = []
    while new := [process for process in _running_in(folder) if process not in stopped]:
        for process in new:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        stopped += new
    try:
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _running_in(folder: Path) -> list[psutil.Process]:
    """The processes whose working directory is this folder or one below."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


if __name__ == "__main__":
    sys.stdin.read()
    kill_in(Path(sys.argv[1]))
    shutil.rmtree(sys.argv[1])
