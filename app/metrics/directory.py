"""The folder in which the workers of one instance share their metrics. Gunicorn's master creates it.

A worker's files are named by its slot, not by its process id. The worker that
replaces it continues its counters, so counters never decrease and there are
never more files than slots.
"""

import atexit
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import structlog

from app import NAME
from app.errors import StartupError
from app.settings.shared_memory import temporary_folder

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder's path. It must be set before `prometheus_client` is first imported."""

SLOT_VARIABLE: Final = "WORKER_SLOT"
"""The environment variable with a worker's slot."""

EVENTS_FILE: Final = "worker_events.json"
"""The file in which the master counts worker events."""

KEYS_FILE: Final = "auth-keys.json"
"""The file in which the workers share the keys of the issuer of access tokens."""

_OWN_FILE: Final = re.compile(
    r"(counter|histogram|gauge_live(sum|max))_\d+\.db(-new)?|[a-z-]+\.report"
    rf"|{re.escape(EVENTS_FILE)}(\.\d+)?|{re.escape(KEYS_FILE)}(\.\w+)?"
)
"""The names of the files that a server leaves in the folder. Other files are not touched."""

_PREFIX: Final = f"{NAME}-metrics-"
_LOCK: Final = "in-use"

log = structlog.get_logger(__name__)


def prepare(directory: str | None) -> None:
    """Create or empty the folder, once in the life of a master: a reload must keep the files of running workers.

    If that fails for the default folder, the service starts all the same, and each worker counts alone.

    Args:
        directory: METRICS_DIRECTORY. By default a new folder in shared memory, removed at the end.

    Raises:
        StartupError: METRICS_DIRECTORY cannot be used, or another running server uses it.
    """
    os.environ.pop(VARIABLE, None)
    try:
        folder = _new_folder() if directory is None else _emptied_folder(Path(directory))
    except OSError as error:
        if directory is not None:
            raise StartupError(
                f"METRICS_DIRECTORY {directory} cannot be used ({error.strerror}): "
                "write a folder that this process may create files in, or leave METRICS_DIRECTORY out."
            ) from None
        log.warning("metrics_directory_unusable", cause=str(error))
    else:
        os.environ[VARIABLE] = str(folder)


def worker_gone(slot: int) -> None:
    """Delete the gauges of a worker that has ended; its counters stay.

    It must be called before another worker gets the slot.
    """
    for file in Path(os.environ.get(VARIABLE, "/nonexistent")).glob(f"gauge_live*_{slot}.db"):
        file.unlink(missing_ok=True)


def _emptied_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    for file in folder.iterdir():
        if _OWN_FILE.fullmatch(file.name):
            file.unlink(missing_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # fails if the folder cannot be written
        return folder


def _lock(folder: Path) -> None:
    """Lock the folder while this process or a worker forked from it runs: two servers would delete each other's files.

    Raises:
        StartupError: Another running server has the lock.
    """
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"METRICS_DIRECTORY {folder} is used by another running server: "
            "give each server a folder of its own, or leave METRICS_DIRECTORY out."
        ) from None


def _new_folder() -> Path:
    parent = temporary_folder()
    for folder in parent.glob(f"{_PREFIX}*"):
        _remove_if_abandoned(folder)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # The lock is held while the master or one of its workers runs, however they end.
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove_if_abandoned(folder: Path) -> None:
    """Remove the folder of a killed master: shared memory is not emptied before the next boot."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:  # It belongs to another user, or is being created.
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # The folder is in use.
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # Workers inherit this exit function from the master.
        shutil.rmtree(folder, ignore_errors=True)
