"""The files in which one worker counts."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Metric, values
from prometheus_client.multiprocess import MultiProcessCollector

from app.metrics.directory import SLOT_VARIABLE, VARIABLE

SIZES: Final = {
    "counter": 128 * 1024,
    "histogram": 256 * 1024,
    "gauge_livesum": 64 * 1024,
    "gauge_livemax": 64 * 1024,
}
"""The initial size of each file in bytes, all of them allocated. prometheus_client maps the files, and a write
to an unallocated block kills the process with SIGBUS when the file system is full."""

_USED: Final = struct.Struct("i")
"""The header of a file: how many of its bytes are in use."""

log = structlog.get_logger(__name__)


def open_files() -> Path | None:
    """Make this process count in the files of its slot. None if it counts alone, in memory.

    Without Gunicorn there is no folder, and the process counts alone.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return None
    slot = own_slot()
    try:
        for kind, size in SIZES.items():
            _prepare(Path(folder, f"{kind}_{slot}.db"), size, keep=not kind.startswith("gauge"))
    except OSError as error:
        log.warning("metrics_files_unusable", slot=slot, cause=str(error))
        values.ValueClass = values.MutexValue
        return None
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]
    return Path(folder)


def own_slot() -> str:
    """The slot of this worker, unique among the running workers."""
    return os.environ.get(SLOT_VARIABLE, "0")


def ensure_space(folder: Path) -> bool:
    """Extend this worker's files before they are full. False when the file system is full.

    The library would double a full file without allocating the blocks.
    """
    try:
        for kind in SIZES:
            file = Path(folder, f"{kind}_{own_slot()}.db")
            with file.open("rb") as opened:
                (used,) = _USED.unpack(opened.read(_USED.size))
            size = file.stat().st_size
            if used > size * 3 // 4:
                _double(file, size)
    except OSError as error:
        log.warning("metrics_files_full", cause=str(error))
        return False
    return True


def _double(file: Path, size: int) -> None:
    try:
        with file.open("ab") as opened:
            opened.write(bytes(size))
    except OSError:
        os.truncate(file, size)
        raise


def _prepare(file: Path, size: int, *, keep: bool) -> None:
    """Create the file, or extend the file of the slot's previous worker, with all blocks allocated."""
    if keep and file.exists() and _is_readable(file):
        with file.open("ab") as old:
            old.write(bytes(max(0, size - file.stat().st_size)))
        return
    # A scrape must not read an incomplete file.
    draft = file.with_suffix(".db-new")
    draft.write_bytes(bytes(size))
    draft.replace(file)


def _is_readable(file: Path) -> bool:
    try:
        MultiProcessCollector.merge([str(file)])  # type: ignore[no-untyped-call]
        with file.open("rb") as opened:
            used: int = _USED.unpack(opened.read(_USED.size))[0]
    except Exception:  # noqa: BLE001  # a damaged file can raise any exception
        return False
    return 0 <= used <= file.stat().st_size


class WorkersCollector(MultiProcessCollector):
    """Reads the files of all workers, and skips a file that cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reported: set[Path] = set()
        super().__init__(None, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """All metrics of all workers."""
        found: Iterable[Metric]
        try:
            found = super().collect()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001  # as above; only then is each file checked
            files = [str(file) for file in self._folder.glob("*.db") if self._can_use(file)]
            found = self.merge(files)  # type: ignore[no-untyped-call]
        return found

    def _can_use(self, file: Path) -> bool:
        if _is_readable(file):
            return True
        if file.exists() and file not in self._reported:
            self._reported.add(file)
            log.warning("metrics_file_unreadable", file=file.name)
        return False
