"""Where a worker was when a signal ended it: Python writes its stacks to a file that the master reads."""

import faulthandler
import os
import tempfile
from contextlib import suppress
from typing import IO, Final

_MAX_BYTES: Final = 64 * 1024

_FRAME: Final = 'File "'


class StackFile:
    """A file without a name. The master makes it before the fork, so that both processes have it open.

    Python writes to it in the handler of SIGABRT, SIGSEGV, SIGBUS, SIGFPE and SIGILL, without running any
    Python code: it works as well if the worker hangs in a library.
    """

    def __init__(self, folder: str | None) -> None:
        """Make the file in this folder. If that fails, the worker has no file, and its stacks are not known."""
        self._file: IO[bytes] | None = None
        with suppress(OSError):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # `close` closes it

    def enable(self) -> None:
        """Have the stacks of this process written to the file if one of the signals ends it."""
        if self._file is not None:
            faulthandler.enable(self._file)

    def read(self) -> str | None:
        """The stacks of all threads, that of the main thread first, each from the innermost frame. None if none."""
        if self._file is None:
            return None
        text = os.pread(self._file.fileno(), _MAX_BYTES, 0).decode(errors="replace")
        threads = [part.strip() for part in text.split("\n\n") if _FRAME in part]
        # Python writes the thread that was created last first.
        return "\n\n".join(reversed(threads)) or None

    def close(self) -> None:
        """Close the file in this process."""
        if self._file is not None:
            self._file.close()
            self._file = None
