"""The folder of the operating system whose files are in shared memory."""

import os
import tempfile
from pathlib import Path
from typing import Final

from app.errors import StartupError

_LINUX_FOLDER: Final = Path("/dev/shm")  # noqa: S108  # nosec B108  # each user of it makes a private folder inside


def shared_memory_folder() -> Path | None:
    """The folder, or None where there is none that this process may write to."""
    return _LINUX_FOLDER if os.access(_LINUX_FOLDER, os.W_OK) else None


def temporary_folder() -> Path:
    """The folder in shared memory, or else the system's folder for temporary files.

    Raises:
        StartupError: There is none that this process may write to.
    """
    try:
        return shared_memory_folder() or Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise StartupError(
            f"No folder for temporary files is writable: make {_LINUX_FOLDER} or /tmp writable, or set TMPDIR."
        ) from None
