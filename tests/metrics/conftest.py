"""Workers that count, as processes of their own, and what a scrape of them says."""

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
    """A process that counts into the files of its slot. It does as `counting_worker.py` is told."""

    def __init__(self, folder: Path, slot: int, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.metrics.counting_worker"],
            cwd=ROOT,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder), "WORKER_SLOT": str(slot)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.tell("ready")

    def tell(self, command: str) -> str:
        """Give a command and return the answer to it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        length = int(self.process.stdout.readline())
        return self.process.stdout.read(length).decode()

    def count(self, requests: int) -> None:
        """Have so many requests answered."""
        self.tell(f"count {requests}")

    def scrape(self) -> dict[str, float]:
        """Every series of all workers, as this one tells them."""
        return series(self.tell("scrape"))

    def end(self) -> None:
        """End as one does when there is nothing left to do."""
        if self.process.poll() is None:
            self.process.communicate(timeout=10)

    def kill(self) -> None:
        """End without a farewell."""
        self.process.kill()
        self.process.communicate()


def series(text: str) -> dict[str, float]:
    """Name and labels of each series, with its value."""
    return {name: float(value) for name, value in re.findall(r"(?m)^([^#].*) (\S+)$", text)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers over one folder, and ends them."""
    workers = []

    def start_worker(slot: int, **environment: str) -> Worker:
        workers.append(Worker(tmp_path, slot, **environment))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.end()
