"""Measures the parts of a request one by one: each way to do it, side by side."""

import asyncio
from statistics import median

from benchmarks.harness.databases import databases
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.timing import Times
from benchmarks.steps import layers, routes, statements, tokens

ROUNDS = 15

_METHOD = """
CPU time of the calling thread per call, in one process, without a server and without load. Under load each call
takes about twice as long, because the CPU caches are cold; the order and the ratios stay the same. The ways of a
table are measured in turns. The figure is the median of the rounds; "relative to the last row" is the paired ratio.
"""

_QUESTIONS = {
    "A route: from the path to the handler's response, without the database": routes.measure,
    "One statement that reads one row": statements.measure_read,
    "One statement that reads a page of 20": statements.measure_page,
    "Middleware: each layer around an application that answers immediately": layers.measure,
    "An access token, where AUTH_ISSUER is set": tokens.measure,
}


def run() -> Report:
    """Run the benchmark."""
    progress = Progress("steps", len(_QUESTIONS))
    found: dict[str, Times] = {}
    with databases() as made:
        url = made.create()
        for title, measure in _QUESTIONS.items():
            progress.step(title.partition(":")[0])
            found[title] = asyncio.run(measure(url, ROUNDS))
    progress.end()
    middle = {title: {name: median(values) for name, values in times.items()} for title, times in found.items()}
    return Report(
        title="The parts of a request",
        method=_METHOD,
        tables=[_table(title, times) for title, times in found.items()],
        plot=Plot(
            title="CPU time per call",
            unit="µs",
            groups={title.partition(":")[0]: values for title, values in middle.items()},
        ),
        facts={"cpu_us": {title: {name: round(v, 2) for name, v in row.items()} for title, row in middle.items()}},
    )


def _table(title: str, times: Times) -> Table:
    last = list(times.values())[-1]
    rows = [[name, format_number(median(values)), str(paired(values, last))] for name, values in times.items()]
    return Table(title=title, columns=["", "µs", "relative to the last row"], rows=rows)
