"""Load by wrk, and what it says of the answers."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.servers import Server

CONNECTIONS = 32

_FOLDER = Path(__file__).parent
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of one server under load."""

    cpu_us: float
    """Worker CPU per request, in microseconds."""

    per_second: float
    """Requests answered."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is asked for."""

    name: str
    path: str
    creates: bool = False


CASES = (
    Case(name="read by id", path="/items/5000"),
    Case(name="page of 20", path="/items"),
    Case(name="create", path="/items", creates=True),
)


def require_wrk() -> None:
    """End in a sentence where the load generator is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing, which makes the load: install it with the system's package manager.")


def measure(server: Server, case: Case, *, seconds: float, connections: int = CONNECTIONS) -> Sample:
    """Ask a server for something as fast as it answers.

    Raises:
        RuntimeError: Not every answer was a success.
    """
    before = server.cpu_seconds()
    told = _wrk(server, case, seconds=seconds, connections=connections)
    cpu_seconds = server.cpu_seconds() - before
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"{server.name} failed to answer {case.name}:\n{told}")
    count, took = _found(r"([1-9]\d*) requests in ([\d.]+\w+)", told)
    return Sample(
        cpu_us=cpu_seconds / int(count) * 1e6,
        per_second=int(count) / _seconds(took),
        p50_ms=_seconds(_found(r"50%\s+([\d.]+\w+)", told)[0]) * 1000,
        p95_ms=float(_found(r"p95 us ([\d.]+)", told)[0]) / 1000,
        p99_ms=_seconds(_found(r"99%\s+([\d.]+\w+)", told)[0]) * 1000,
    )


def warm_up(server: Server, case: Case) -> None:
    """Have connections opened, statements prepared and pages filled before anything is measured."""
    _wrk(server, case, seconds=1, connections=CONNECTIONS)


def _wrk(server: Server, case: Case, *, seconds: float, connections: int) -> str:
    command = [
        *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:g}s"),
        *("--timeout", "30s", "--latency", "--script", str(_FOLDER / ("create.lua" if case.creates else "read.lua"))),
        server.url(case.path),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _found(pattern: str, told: str) -> tuple[str, ...]:
    match = re.search(pattern, told)
    if match is None:
        raise RuntimeError(f"wrk says nothing like {pattern}:\n{told}")
    return match.groups()


def _seconds(text: str) -> float:
    number, unit = _found(r"([\d.]+)(\w+)", text)
    return float(number) * _UNITS[unit]
