"""Compares an export of a million items with COPY through a serializer, and shows what it costs others."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles

import asyncpg
import httpx

from benchmarks.harness.numbers import format_number
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import Server, service
from benchmarks.scale.load import load
from tests.cluster import migrate, throw_away_cluster

ITEMS = 1_000_000
ROUNDS = 5
READ_SECONDS = 5.0

_MEGABYTE = 1024 * 1024
_SAMPLE_SECONDS = 0.02
_METHOD = f"""
{ITEMS:,} items, one worker, PostgreSQL on the same machine. The export is read by `curl` into `/dev/null`. COPY runs in
a program of its own (`benchmarks/export/copying.py`), which parses the rows, builds what a line of the export has,
renders it with orjson and writes it to `/dev/null`. The two take turns, {ROUNDS} times; the figures are medians. Memory
is the growth of the worker's resident set from before an export, after a first one that is not counted, to the highest
sample during it. Other requests are reads by id, one after the other on one connection, for {READ_SECONDS:g} s.
"""


def run() -> Report:
    """Run the benchmark."""
    with throw_away_cluster({"shared_buffers": "512MB"}) as cluster:
        asyncio.run(_fill(cluster.url))
        return measure(cluster.url)


async def _fill(url: str) -> None:
    await asyncio.to_thread(migrate, url)
    connection = await asyncpg.connect(url)
    await load(connection, ITEMS)
    await connection.close()


def measure(url: str) -> Report:
    """Measure with a loaded table."""
    progress = Progress("export", ROUNDS + 4)
    with service("this service", url, RATE_LIMIT_EXPORT="1000000/second") as server:
        progress.step("warming up")
        _export(server)
        exports, copies, growths = [], [], []
        for _ in range(ROUNDS):
            progress.step("export and COPY")
            seconds, growth = _export(server)
            exports.append(seconds)
            growths.append(growth)
            copies.append(_copy(url))
        latencies = {}
        for running in (0, 1, 2):
            progress.step("other requests")
            latencies[running] = _read(server, exports=running)
    progress.end()
    speeds = {"the export": ITEMS / median(exports), "COPY through a serializer": ITEMS / median(copies)}
    ratio = median(copies) / median(exports)
    rows = [[name, format_number(speed)] for name, speed in speeds.items()]
    return Report(
        title="Exports",
        method=_METHOD,
        tables=[
            Table(
                title="Speed", columns=["", "items a second"], rows=[*rows, ["the first to the second", f"{ratio:.2f}"]]
            ),
            Table(
                title="Memory",
                columns=["", "MB"],
                rows=[["growth of the worker, median", f"{median(growths):.1f}"], ["the most", f"{max(growths):.1f}"]],
            ),
            Table(
                title="Other requests",
                columns=["exports at the same time", "median, ms", "99 %, ms"],
                rows=[[str(running), f"{middle:.1f}", f"{high:.1f}"] for running, (middle, high) in latencies.items()],
            ),
        ],
        facts={
            "export_seconds": [round(value, 2) for value in exports],
            "copy_seconds": [round(value, 2) for value in copies],
            "growth_mb": [round(value, 1) for value in growths],
            "other_requests_ms": {
                str(running): [round(value, 2) for value in both] for running, both in latencies.items()
            },
        },
    )


def _curl(server: Server) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["curl", "--silent", "--fail", "--output", "/dev/null", server.url("/items/export")])


def _export(server: Server) -> tuple[float, float]:
    """The seconds of an export, and by how many megabytes the worker grew."""
    [worker] = server.workers()
    before = worker.memory_info().rss
    most = before
    started = time.perf_counter()
    with _curl(server) as reader:
        while reader.poll() is None:
            most = max(most, worker.memory_info().rss)
            time.sleep(_SAMPLE_SECONDS)
    if reader.returncode:
        raise RuntimeError(f"curl exits with {reader.returncode}")
    return time.perf_counter() - started, (most - before) / _MEGABYTE


def _copy(url: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "benchmarks.export.copying", url], check=True)
    return time.perf_counter() - started


def _read(server: Server, *, exports: int) -> tuple[float, float]:
    """The median and the 99th percentile of the time of a read by id, in milliseconds, beside exports."""
    durations = []
    with ExitStack() as stack:
        for _ in range(exports):
            stack.enter_context(_exporting(server))
        client = stack.enter_context(httpx.Client())
        end = time.perf_counter() + READ_SECONDS
        while (started := time.perf_counter()) < end:
            client.get(server.url("/items/500000")).raise_for_status()
            durations.append((time.perf_counter() - started) * 1000)
    return median(durations), quantiles(durations, n=100)[98]


@contextmanager
def _exporting(server: Server) -> Iterator[None]:
    """One export after the other."""
    loop = 'while curl --silent --output /dev/null "$0"; do :; done'
    with subprocess.Popen(["sh", "-c", loop, server.url("/items/export")], start_new_session=True) as exporting:
        try:
            yield
        finally:
            os.killpg(exporting.pid, signal.SIGKILL)
