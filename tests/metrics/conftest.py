"""Worker processes that count, and the series of a scrape."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

Start = Callable[..., "Worker"]


class Worker:
    """A process that counts in the files of its slot. It runs the commands of `counting_worker.py`."""

    def __init__(self, folder: Path, slot: int, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.metrics.counting_worker"],
            cwd=ROOT,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder), "WORKER_SLOT": str(slot)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.command("ready")

    def command(self, command: str) -> str:
        """Send a command and return its answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        length = int(self.process.stdout.readline())
        return self.process.stdout.read(length).decode()

    def count(self, requests: int) -> None:
        """Count this many requests."""
        self.command(f"count {requests}")

    def scrape(self) -> dict[str, float]:
        """Every series of all workers, in a scrape of this one."""
        return series(self.command("scrape"))

    def end(self) -> None:
        """End the process normally."""
        if self.process.poll() is None:
            self.process.communicate(timeout=10)

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()


def series(text: str) -> dict[str, float]:
    """The value of each series, by its name and labels."""
    return {name: float(value) for name, value in re.findall(r"(?m)^([^#].*) (\S+)$", text)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers that share one folder, and ends them."""
    workers = []

    def start_worker(slot: int, **environment: str) -> Worker:
        workers.append(Worker(tmp_path, slot, **environment))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.end()
