"""What each step towards a cheap request is worth: the way before it, and the way after it, side by side."""

import asyncio
from statistics import median

from benchmarks.harness.databases import databases
from benchmarks.harness.numbers import paired, plain
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Plot, Report, Table
from benchmarks.harness.timing import Times
from benchmarks.steps import layers, routes, statements

ROUNDS = 15

_METHOD = """
CPU time of the calling thread per call, in one process, without a server and without load: calls run hot here,
and under load each of them takes about twice as long, for it finds the caches cold. What stays true is which way
is the cheaper one, and how often. Each way is called in turns with the others of its table. The figure is the median of
the rounds; "against the last" is the paired ratio to the last row of the table.
"""

_QUESTIONS = {
    "A route: from the path to the handler's answer, nothing asked of the database": routes.measure,
    "One statement that reads one row": statements.measure_read,
    "One statement that reads a page of 20": statements.measure_page,
    "What stands around a handler: each layer around an application that answers at once": layers.measure,
}


def run() -> Report:
    """Measure all steps."""
    progress = Progress("steps", len(_QUESTIONS))
    found: dict[str, Times] = {}
    with databases() as made:
        url = made.make()
        for title, measure in _QUESTIONS.items():
            progress.step(title.partition(":")[0])
            found[title] = asyncio.run(measure(url, ROUNDS))
    progress.end()
    middle = {title: {name: median(values) for name, values in times.items()} for title, times in found.items()}
    return Report(
        title="What each step was worth",
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
    rows = [[name, plain(median(values)), str(paired(values, last))] for name, values in times.items()]
    return Table(title=title, columns=["", "µs", "against the last"], rows=rows)
