"""What the workers of one instance have reported last, so that a change is one line in the log.

No worker can report for the others: each slot is empty at times, and the workers of a reload may find something else
than those before.
"""

import fcntl
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

SUFFIX: Final = ".report"

_ATTEMPTS: Final = 50
_PAUSE_SECONDS: Final = 0.001
"""Between two attempts to lock the file. A worker holds the lock for less, unless it has to wait for a CPU."""


class LastReport:
    """The last report of all workers, in a file that they share."""

    def __init__(self, folder: Path | None, name: str) -> None:
        """Open nothing yet.

        Args:
            folder: The folder that the workers share. None if this process is alone.
            name: What is reported, such as `readiness`.
        """
        self._file = folder / f"{name}{SUFFIX}" if folder else None

    def replace(self, report: str) -> bool:
        """Make this the last report. False if it is already. Without a usable file each report is a new one."""
        if self._file is None:
            return True
        try:
            with self._file.open("a+", encoding="utf-8") as file:
                _lock(file.fileno())
                file.seek(0)
                if file.read() == report:
                    return False
                file.truncate(0)
                file.write(report)
        except (OSError, UnicodeDecodeError):
            return True
        return True


def _lock(descriptor: int) -> None:
    """Lock the file. Workers that find out the same at the same moment take turns.

    Raises:
        OSError: Another worker holds the lock for longer: it may have been stopped.
    """
    for _ in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_SECONDS)
    raise BlockingIOError
