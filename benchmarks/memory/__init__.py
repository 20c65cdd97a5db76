"""What four workers weigh, whether they grow, and how soon they serve."""

from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

from benchmarks.harness.databases import databases
from benchmarks.harness.load import CASES, measure, require_wrk
from benchmarks.harness.numbers import plain
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import Server, service

WORKERS = 4
REQUESTS = 100_000
STARTS = 5

_SECONDS = 5.0
_MEGABYTE = 1024
_METHOD = f"""
{WORKERS} workers and their master. Proportional set size counts a page that several processes share in equal parts,
by `smaps_rollup`. The first figure is taken after a start, the second after all cases have been asked for, so that
every statement is prepared, the third after {REQUESTS:,} requests more. Start to ready is the time from the command to
the first item it answers with, the median of {STARTS} starts; the bytecode is compiled already, as in the image.
"""


def run() -> Report:
    """Measure one server, and several starts."""
    require_wrk()
    progress = Progress("memory", 4 + STARTS)
    progress.step("starting")
    with databases() as made:
        url = made.make()
        with service("this service", url, workers=WORKERS) as server:
            started = weights(server)
            progress.step("warming up")
            for case in (*CASES, CASES[0]):
                measure(server, case, seconds=_SECONDS)
            warm = weights(server)
            progress.step(f"{REQUESTS:,} requests")
            answered = 0.0
            while answered < REQUESTS:
                answered += measure(server, CASES[0], seconds=_SECONDS).per_second * _SECONDS
            after = weights(server)
        seconds = [_start(url, progress) for _ in range(STARTS)]
    progress.end()
    growth = median(after) - median(warm)
    rows = [
        ["a worker, after the start", plain(median(started))],
        ["a worker, all cases asked for", plain(median(warm))],
        [f"a worker, {REQUESTS:,} requests later", plain(median(after))],
    ]
    ready = [["start to ready", plain(median(seconds))], ["the slowest", plain(max(seconds))]]
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


def weights(server: Server) -> list[float]:
    """The proportional set size of each worker in megabytes."""
    found = []
    for worker in server.workers():
        # A worker may be replaced meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            found.append(round(_proportional_set_size(worker.pid), 1))
    return found


def _proportional_set_size(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / _MEGABYTE
    raise RuntimeError("This system does not tell how much memory processes share.")


def _start(url: str, progress: Progress) -> float:
    progress.step("starting again")
    with service("this service", url, workers=WORKERS) as server:
        return server.ready_seconds
