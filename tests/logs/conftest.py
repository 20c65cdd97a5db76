"""Runs scripts whose log lines are read from standard output."""

import subprocess
import sys
from typing import Protocol

import pytest

from tests.paths import ROOT


class Script(Protocol):
    """Runs Python code in a new process in which `app.logs` is configured first."""

    def __call__(self, code: str, level: str = ..., format: str = ...) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        """Run the code and wait until it ends."""


@pytest.fixture
def run_script() -> Script:
    """Runs Python code in a new process in which `app.logs` is configured first."""

    def run(code: str, level: str = "info", format: str = "json") -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        start = f"from app import logs\nlogs.configure({level!r}, {format!r})\n"
        return subprocess.run(
            [sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, timeout=30, check=False
        )

    return run
