"""The log lines of this process, read from the pipe that they are written to."""

import fcntl
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
import pytest
import structlog

from app import logs

Lines = Callable[[], list[dict[str, Any]]]
"""Returns the lines that were logged since the last call."""


@contextmanager
def reading_lines() -> Iterator[Lines]:
    """Configure logging at debug for this process, and restore it at the end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1024 * 1024)

    def read() -> list[dict[str, Any]]:
        assert logs.flush()
        written = b""
        with suppress(BlockingIOError):
            while chunk := os.read(reader, 65_536):
                written += chunk
        return [orjson.loads(line) for line in written.splitlines()]

    with pytest.MonkeyPatch.context() as patch:
        for place, name in [(sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")]:
            patch.setattr(place, name, getattr(place, name))
        patch.setattr(logging.getLogger(), "handlers", [])
        patch.setattr(logging.getLogger(), "level", logging.WARNING)
        patch.setattr(logging.getLogger("asyncio"), "level", logging.WARNING)
        assert logs.flush(10)  # lines of earlier tests go where those tests wrote
        logs.configure("debug", "json", writer)
        try:
            yield read
        finally:
            logs.flush()
            logging.captureWarnings(capture=False)
            structlog.reset_defaults()
            logs.output.descriptor = 1
            os.close(writer)
            os.close(reader)
