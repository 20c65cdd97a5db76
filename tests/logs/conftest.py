"""Log lines as a reader of standard output gets them."""

import subprocess
import sys
from typing import Protocol

import pytest

from tests.paths import ROOT


class Script(Protocol):
    """Runs Python in a process of its own, with `app.logs` configured before its first line."""

    def __call__(self, code: str, level: str = ..., format: str = ...) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        """Run the code and wait for its end."""


@pytest.fixture
def run_script() -> Script:
    """Runs Python in a process of its own, with `app.logs` configured before its first line."""

    def run(code: str, level: str = "info", format: str = "json") -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        start = f"from app import logs\nlogs.configure({level!r}, {format!r})\n"
        return subprocess.run(
            [sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, timeout=30, check=False
        )

    return run
