"""Makes the master fail to start processes, as a system does that has none left."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

FAILING_FORK = """
import errno, os, pathlib

fork, fault = os.fork, pathlib.Path(os.environ["TEST_FORK_FAULT"])

def failing_fork():
    if fault.exists():
        raise OSError(getattr(errno, fault.read_text()), "no process for you")
    return fork()

os.fork = failing_fork
"""
"""Python runs this in the master, before Gunicorn."""


class FailingFork:
    """Makes every fork of the master fail while it is set."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "fault"
        (folder / "sitecustomize.py").write_text(FAILING_FORK)
        self.environment = {"PYTHONPATH": str(folder), "TEST_FORK_FAULT": str(self._file)}

    @contextlib.contextmanager
    def set(self, name: str) -> Iterator[None]:
        """Let every fork fail with this error until the block ends."""
        self._file.write_text(name)
        yield
        self._file.unlink()
