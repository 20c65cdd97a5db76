"""What the workers of one instance have reported last, so that a change is one line in the log.

No worker can report for the others: each slot is empty at times, and the workers of a reload may find something else
than those before.
"""

import fcntl
from pathlib import Path
from typing import Final

SUFFIX: Final = ".report"


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
                # Never waited for: another worker may have been stopped while it holds the lock.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.seek(0)
                if file.read() == report:
                    return False
                file.truncate(0)
                file.write(report)
        except (OSError, UnicodeDecodeError):
            return True
        return True
