"""Measures the worker CPU of one request, relative to the floor of the stack and to the common pattern."""

from statistics import median

from benchmarks.harness.load import CASES, Sample
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.request.sides import (
    COMMON,
    FLOOR,
    FLOOR_WITHOUT_RESET,
    SERVICE,
    Samples,
    running,
    take_turns,
    warm_up_all,
)

ROUNDS = 7
SECONDS = 2.0

_SIDES = (FLOOR, FLOOR_WITHOUT_RESET, SERVICE, COMMON)
_METHOD = """
Each side is one worker process with a table of 10,000 items in the same PostgreSQL. They are measured in turns, over 32
connections of wrk. This service runs as in production: Gunicorn, one worker, its own connection protocol with
deadlines and bounds, request log, request id, metrics and rate limit on. The floor and the common pattern run
under plain Uvicorn with the same event loop and parser, and each has ten database connections. CPU is the user and
system time of the worker process, from `/proc`. Ratios are paired within a round: the table shows their median and
their quartiles. asyncpg's pool resets every returned connection in an additional round trip; a second floor does not.
"""


def run() -> Report:
    """Run the benchmark."""
    progress = Progress("request", ROUNDS * len(CASES) * len(_SIDES) + 1)
    samples: Samples = {}
    with running(_SIDES) as servers:
        progress.step("warming up")
        warm_up_all(servers)
        take_turns(servers, progress, samples, rounds=ROUNDS, seconds=SECONDS)
    progress.end()
    return _report(samples)


def _report(samples: Samples) -> Report:
    cpu = {key: [sample.cpu_us for sample in taken] for key, taken in samples.items()}
    of_floor = {case.name: paired(cpu[case.name, SERVICE], cpu[case.name, FLOOR]) for case in CASES}
    of_strict = {case.name: paired(cpu[case.name, SERVICE], cpu[case.name, FLOOR_WITHOUT_RESET]) for case in CASES}
    cheaper = {case.name: paired(cpu[case.name, COMMON], cpu[case.name, SERVICE]) for case in CASES}
    names = [case.name for case in CASES]
    ratios = Table(
        title="Ratios of worker CPU per request",
        columns=["", *names],
        rows=[
            ["this service, as a multiple of the floor", *(str(of_floor[name]) for name in names)],
            ["this service, as a multiple of the floor without reset", *(str(of_strict[name]) for name in names)],
            ["times cheaper than the common pattern", *(str(cheaper[name]) for name in names)],
        ],
    )
    sides = Table(
        title="Each side",
        columns=["", "CPU per request, µs", "requests a second", "p50, ms", "p99, ms"],
        rows=[
            [f"{name}: {side}", *(format_number(value) for value in _medians(samples[name, side]))]
            for name in names
            for side in _SIDES
        ],
    )
    middle = {name: {side: median(cpu[name, side]) for side in _SIDES} for name in names}
    return Report(
        title="What one request costs",
        method=_METHOD,
        tables=[ratios, sides],
        plot=Plot(title="Worker CPU per request, everything on", unit="µs", groups=middle),
        claims=[
            Claim(
                claimed="The patterns are worth several times the throughput",
                measured=", ".join(f"{name}: {cheaper[name].median:.1f} times cheaper" for name in names),
                why="Kept: one statement a request, no session, nothing rendered twice, middleware in pure ASGI",
            )
        ],
        facts={
            "multiple_of_floor": {name: round(of_floor[name].median, 3) for name in names},
            "multiple_of_floor_without_reset": {name: round(of_strict[name].median, 3) for name in names},
            "times_cheaper_than_common_pattern": {name: round(cheaper[name].median, 3) for name in names},
            "cpu_us": {name: {side: round(value, 1) for side, value in row.items()} for name, row in middle.items()},
        },
    )


def _medians(samples: list[Sample]) -> list[float]:
    return [
        median(getattr(sample, name) for sample in samples) for name in ("cpu_us", "per_second", "p50_ms", "p99_ms")
    ]
