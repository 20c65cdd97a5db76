"""Measures the memory of four workers, its growth under load, and the time of a start."""

from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

from benchmarks.harness.databases import databases
from benchmarks.harness.load import CASES, measure, require_wrk
from benchmarks.harness.numbers import format_number
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import Server, service

WORKERS = 4
REQUESTS = 100_000
STARTS = 5

_SECONDS = 5.0
_MEGABYTE = 1024
_METHOD = f"""
{WORKERS} workers and their master. Proportional set size divides a shared page equally among the processes that share
it (`smaps_rollup`). The first figure is taken after a start, the second after requests of all cases, so that every
statement is prepared, the third after {REQUESTS:,} more requests. Start to ready is the time from the command to the
first response with an item, the median of {STARTS} starts. Bytecode is already compiled, as in the image.
"""


def run() -> Report:
    """Run the benchmark."""
    require_wrk()
    progress = Progress("memory", 4 + STARTS)
    progress.step("starting")
    with databases() as made:
        url = made.create()
        with service("this service", url, workers=WORKERS) as server:
            started = pss_megabytes(server)
            progress.step("warming up")
            for case in (*CASES, CASES[0]):
                measure(server, case, seconds=_SECONDS)
            warm = pss_megabytes(server)
            progress.step(f"{REQUESTS:,} requests")
            answered = 0.0
            while answered < REQUESTS:
                answered += measure(server, CASES[0], seconds=_SECONDS).per_second * _SECONDS
            after = pss_megabytes(server)
        seconds = [_start(url, progress) for _ in range(STARTS)]
    progress.end()
    growth = median(after) - median(warm)
    rows = [
        ["a worker, after the start", format_number(median(started))],
        ["a worker, after requests of all cases", format_number(median(warm))],
        [f"a worker, {REQUESTS:,} requests later", format_number(median(after))],
    ]
    ready = [["start to ready", format_number(median(seconds))], ["the slowest", format_number(max(seconds))]]
    return Report(
        title="Memory and start",
        method=_METHOD,
        tables=[
            Table(title="Proportional set size", columns=["", "MB"], rows=rows),
            Table(title="Time", columns=["", "s"], rows=ready),
        ],
        facts={
            "pss_mb": {"started": started, "warm": warm, "after": after},
            "growth_mb": round(growth, 2),
            "ready_seconds": [round(value, 2) for value in seconds],
        },
    )


def pss_megabytes(server: Server) -> list[float]:
    """The proportional set size of each worker in megabytes."""
    found = []
    for worker in server.workers():
        # A worker may be replaced during the measurement.
        with suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            found.append(round(_proportional_set_size(worker.pid), 1))
    return found


def _proportional_set_size(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / _MEGABYTE
    raise RuntimeError("/proc/PID/smaps_rollup has no Pss line on this system.")


def _start(url: str, progress: Progress) -> float:
    progress.step("starting again")
    with service("this service", url, workers=WORKERS) as server:
        return server.ready_seconds
