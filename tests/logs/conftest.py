"""Log lines as a reader of standard output gets them."""

import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
import structlog

from app import logs

Lines = Callable[[], list[dict[str, Any]]]


class Script(Protocol):
    """Runs Python in a process of its own, with `app.logs` configured before its first line."""

    def __call__(self, code: str, level: str = ..., format: str = ...) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        """Run the code and wait for its end."""


ROOT = Path(__file__).parents[2]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Configures this process at debug, and gives back what it has logged since the last call."""
    for place, name in [(sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")]:
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    monkeypatch.setattr(logging.getLogger("asyncio"), "level", logging.WARNING)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    logs.configure("debug", "json", writer)

    def read() -> list[dict[str, Any]]:
        assert logs.flush()
        written = b""
        try:
            while chunk := os.read(reader, 65_536):
                written += chunk
        except BlockingIOError:
            pass
        return [orjson.loads(line) for line in written.splitlines()]

    yield read
    logs.flush()
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    logs.output.descriptor = 1
    os.close(writer)
    os.close(reader)


@pytest.fixture
def run_script() -> Script:
    """Runs Python in a process of its own, with `app.logs` configured before its first line."""

    def run(code: str, level: str = "info", format: str = "json") -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        start = f"from app import logs\nlogs.configure({level!r}, {format!r})\n"
        return subprocess.run(
            [sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, timeout=30, check=False
        )

    return run
