"""Measures what a batch of items costs, relative to as many single requests, and the memory that large ones take."""

from pathlib import Path
from statistics import median

from benchmarks.harness.databases import databases, restore
from benchmarks.harness.load import CASES, Case, Sample, measure, require_wrk, warm_up
from benchmarks.harness.numbers import Ratio, format_number, paired
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.harness.servers import Server, service

ROUNDS = 5
CONNECTIONS = 8
SECONDS = 2.0
SIZES = (10, 100, 500)

_LONG = 2_000
"""Characters of a description with which 500 items have almost 1 MiB."""

_METHOD = f"""
One worker as in production, with request log, metrics and rate limit on, and a table of 10,000 items. wrk creates items
over {CONNECTIONS} connections, one by one and in batches of several sizes, in turns. CPU is the user and system time of
the worker process, from `/proc`. Ratios are paired within a round: the table shows their median and their quartiles.
Memory is the highest resident set size of the worker so far, after the measurement, and then after batches of almost
1 MiB over {CONNECTIONS} connections at once.
"""

_SINGLE = next(case for case in CASES if case.creates)


def batch(size: int, *, characters: int = 29) -> Case:
    """A batch of so many items, each with a description of so many characters."""
    return Case(
        name=f"batch of {size}",
        path="/items/batch",
        creates=True,
        script="batch.lua",
        arguments=(str(size), str(characters)),
    )


def run() -> Report:
    """Run the benchmark."""
    require_wrk()
    cases = (_SINGLE, *map(batch, SIZES))
    progress = Progress("batch", ROUNDS * len(cases) + 2)
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    with databases() as made:
        url = made.create()
        with service("this service", url, DATABASE_CONNECTIONS="10") as server:
            progress.step("warming up")
            for case in cases:
                warm_up(server, case)
            restore(url)
            for number in range(ROUNDS):
                for case in cases:
                    progress.step(f"{case.name}, round {number + 1}")
                    samples[case.name].append(measure(server, case, seconds=SECONDS, connections=CONNECTIONS))
                    restore(url)
            before = _highest_megabytes(server)
            progress.step("1 MiB each")
            measure(server, batch(SIZES[-1], characters=_LONG), seconds=SECONDS, connections=CONNECTIONS)
            after = _highest_megabytes(server)
    progress.end()
    return _report(samples, before, after)


def _report(samples: dict[str, list[Sample]], before: float, after: float) -> Report:
    cpu = {name: [sample.cpu_us for sample in taken] for name, taken in samples.items()}
    ratios = {size: paired(cpu[f"batch of {size}"], [size * single for single in cpu[_SINGLE.name]]) for size in SIZES}
    rows = [["one item", *_row(samples[_SINGLE.name], 1, None)]]
    rows += [[f"batch of {size}", *_row(samples[f"batch of {size}"], size, ratios[size])] for size in SIZES]
    columns = [
        "",
        "CPU per request, µs",
        "CPU per item, µs",
        "as a part of single requests",
        "items a second",
        "p99, ms",
    ]
    memory = [["after the batches above", format_number(before)], ["after batches of 1 MiB", format_number(after)]]
    return Report(
        title="What a batch costs",
        method=_METHOD,
        tables=[
            Table(title="Worker CPU", columns=columns, rows=rows),
            Table(title="Memory of the worker", columns=["", "MiB"], rows=memory),
        ],
        claims=[
            Claim(
                claimed="Many items in one request are cheaper than one by one",
                measured=f"100 items in one batch: {ratios[100].median:.3f} of the worker CPU of 100 requests",
                why="Kept: one statement with an array for each column; validated as a whole",
            )
        ],
        facts={
            "of_single_requests": {size: round(ratio.median, 4) for size, ratio in ratios.items()},
            "cpu_us": {name: round(median(values), 1) for name, values in cpu.items()},
            "highest_mib": {"batches": round(before, 1), "batches of 1 MiB": round(after, 1)},
        },
    )


def _row(samples: list[Sample], size: int, ratio: Ratio | None) -> list[str]:
    cpu = median(sample.cpu_us for sample in samples)
    per_second = median(sample.per_second for sample in samples) * size
    p99 = median(sample.p99_ms for sample in samples)
    part = "1" if ratio is None else f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    return [format_number(cpu), format_number(cpu / size), part, format_number(per_second), format_number(p99)]


def _highest_megabytes(server: Server) -> float:
    (worker,) = server.workers()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
