"""The folder in which the workers of one instance share their metrics. Gunicorn's master keeps it.

A worker's files carry the number of its slot, not its process id: who replaces
a worker goes on counting where it ended, so counters never fall and there are
never more files than slots.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import structlog

from app import NAME
from app.settings.shared_memory import temporary_folder

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where `prometheus_client` looks for the folder. It has to be set before the first import of it."""

SLOT_VARIABLE: Final = "WORKER_SLOT"
"""The environment variable in which a worker finds its slot."""

EVENTS_FILE: Final = "worker_events.json"
"""Where in the folder the master counts what happens to the workers."""

_PREFIX: Final = f"{NAME}-metrics-"
_LOCK: Final = "in-use"

log = structlog.get_logger(__name__)


def prepare(directory: str | None) -> None:
    """Empty or make the folder, once in the life of a master: a reload must not take the files of living workers.

    Where that is impossible the service goes on, and each worker counts for itself.

    Args:
        directory: The operator's choice. By default a fresh folder in shared memory, removed at the end.
    """
    os.environ.pop(VARIABLE, None)
    try:
        folder = _fresh_folder() if directory is None else _emptied_folder(Path(directory))
    except OSError as error:
        log.warning("metrics_directory_unusable", directory=directory, cause=str(error))
    else:
        os.environ[VARIABLE] = str(folder)


def worker_gone(slot: int) -> None:
    """Take the gauges of a worker that has ended out of the scrape; its counters stay.

    To be called before the slot is given to another worker.
    """
    for file in Path(os.environ.get(VARIABLE, "/nonexistent")).glob(f"gauge_live*_{slot}.db"):
        file.unlink(missing_ok=True)


def _emptied_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.db*"), folder / EVENTS_FILE):
        file.unlink(missing_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # whether it can be written at all
        return folder


def _fresh_folder() -> Path:
    parent = temporary_folder()
    for folder in parent.glob(f"{_PREFIX}*"):
        _remove_if_abandoned(folder)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # Locked while the master or one of its workers lives, however they end.
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove_if_abandoned(folder: Path) -> None:
    """Remove what a killed master left behind: shared memory is not emptied before the next boot."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:  # Another user's, or just being made.
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # In use.
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # Workers inherit this function, and run it when they end.
        shutil.rmtree(folder, ignore_errors=True)
