"""Runs wrk against a server, and parses its report."""

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
    """Requests served in a second."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request of the benchmark."""

    name: str
    path: str
    creates: bool = False
    script: str = "read.lua"
    """The script of wrk that makes the request."""

    arguments: tuple[str, ...] = ()
    """What the script takes."""


CASES = (
    Case(name="read by id", path="/items/5000"),
    Case(name="page of 20", path="/items"),
    Case(name="create", path="/items", creates=True, script="create.lua"),
)


def require_wrk() -> None:
    """End with one sentence if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing. It generates the load; install it with the system's package manager.")


def measure(server: Server, case: Case, *, seconds: float, connections: int = CONNECTIONS) -> Sample:
    """Send requests over all connections, each as soon as the previous one is answered.

    Raises:
        RuntimeError: Not every answer was a success.
    """
    before = server.cpu_seconds()
    output = _wrk(server, case, seconds=seconds, connections=connections)
    cpu_seconds = server.cpu_seconds() - before
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"{server.name} failed to answer {case.name}:\n{output}")
    count, took = _match(r"([1-9]\d*) requests in ([\d.]+\w+)", output)
    return Sample(
        cpu_us=cpu_seconds / int(count) * 1e6,
        per_second=int(count) / _seconds(took),
        p50_ms=_seconds(_match(r"50%\s+([\d.]+\w+)", output)[0]) * 1000,
        p95_ms=float(_match(r"p95 us ([\d.]+)", output)[0]) / 1000,
        p99_ms=_seconds(_match(r"99%\s+([\d.]+\w+)", output)[0]) * 1000,
    )


def warm_up(server: Server, case: Case) -> None:
    """Send requests for a second before the measurement, so that connections are open and statements prepared."""
    _wrk(server, case, seconds=1, connections=CONNECTIONS)


def _wrk(server: Server, case: Case, *, seconds: float, connections: int) -> str:
    command = [
        *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:g}s"),
        *("--timeout", "30s", "--latency", "--script", str(_FOLDER / case.script)),
        server.url(case.path),
        *("--", *case.arguments),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _match(pattern: str, output: str) -> tuple[str, ...]:
    match = re.search(pattern, output)
    if match is None:
        raise RuntimeError(f"The output of wrk does not match {pattern}:\n{output}")
    return match.groups()


def _seconds(text: str) -> float:
    number, unit = _match(r"([\d.]+)(\w+)", text)
    return float(number) * _UNITS[unit]
