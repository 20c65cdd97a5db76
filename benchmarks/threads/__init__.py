"""Compares synchronous handlers in the thread pool with asynchronous ones, by the number of clients."""

from contextlib import ExitStack
from statistics import median

from benchmarks.harness.databases import databases, restore
from benchmarks.harness.load import CASES, Sample, measure, require_wrk
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.harness.servers import uvicorn

CLIENTS = (1, 100, 1000)
ROUNDS = 3
SECONDS = 4.0

_SYNC = "synchronous, in the thread pool"
_ASYNC = "asynchronous"
_SIDES = (_SYNC, _ASYNC)
_METHOD = f"""
One worker process creates items for 1, 100 and 1,000 clients without pauses, {SECONDS:g} s at a time in {ROUNDS} rounds
taken in turns. Each handler is in a bare FastAPI application with ten connections; the synchronous one uses psycopg,
the asynchronous one asyncpg. This service is not measured here, because it refuses most of 1,000 concurrent clients.
"""


def run() -> Report:
    """Run the benchmark."""
    require_wrk()
    create = CASES[-1]
    samples: dict[tuple[str, int], list[Sample]] = {}
    progress = Progress("threads", ROUNDS * len(CLIENTS) * len(_SIDES))
    with databases() as made, ExitStack() as stack:
        urls = {side: made.create() for side in _SIDES}
        servers = {
            _SYNC: uvicorn(_SYNC, "benchmarks.threads.applications:synchronous", urls[_SYNC]),
            _ASYNC: uvicorn(_ASYNC, "benchmarks.threads.applications:asynchronous", urls[_ASYNC]),
        }
        for server in servers.values():
            stack.enter_context(server)
            measure(server, create, seconds=1)
        for number in range(ROUNDS):
            for clients in CLIENTS:
                for side, server in servers.items():
                    progress.step(f"{side}, {clients} clients, round {number + 1}")
                    sample = measure(server, create, seconds=SECONDS, connections=clients)
                    samples.setdefault((side, clients), []).append(sample)
                    restore(urls[side])
    progress.end()
    return _report(samples)


def _report(samples: dict[tuple[str, int], list[Sample]]) -> Report:
    columns = {
        "requests a second": "per_second",
        "p50, ms": "p50_ms",
        "p95, ms": "p95_ms",
        "CPU per request, µs": "cpu_us",
    }

    def middle(side: str, clients: int, attribute: str) -> float:
        return float(median(getattr(sample, attribute) for sample in samples[side, clients]))

    def ratio(clients: int) -> float:
        taken = ([sample.per_second for sample in samples[side, clients]] for side in (_ASYNC, _SYNC))
        return paired(*taken).median

    rows = [
        [f"{clients:,} concurrent: {side}", *(format_number(middle(side, clients, name)) for name in columns.values())]
        for clients in CLIENTS
        for side in _SIDES
    ]
    many = CLIENTS[1]
    return Report(
        title="Threads and the event loop",
        method=_METHOD,
        tables=[Table(title="Creating items", columns=["", *columns], rows=rows)],
        plot=Plot(
            title="Items created a second by one worker",
            unit="requests a second",
            groups={f"{n:,} concurrent": {side: middle(side, n, "per_second") for side in _SIDES} for n in CLIENTS},
        ),
        claims=[
            Claim(
                claimed="Asynchronous handlers raise throughput from 250 to 850 creates a second, 3.4 times",
                measured=", ".join(f"{ratio(clients):.1f} times with {clients:,} concurrent" for clients in CLIENTS),
                why=f"With {many} concurrent {middle(_SYNC, many, 'per_second'):,.0f} against "
                f"{middle(_ASYNC, many, 'per_second'):,.0f} a second. Kept: switching threads costs more than "
                "switching tasks; how much depends on the machine",
            ),
            Claim(
                claimed="They lower p95 from 400 to 120 ms",
                measured=", ".join(
                    f"{middle(_SYNC, n, 'p95_ms'):,.0f} to {middle(_ASYNC, n, 'p95_ms'):,.0f} ms with {n:,} concurrent"
                    for n in CLIENTS
                ),
                why="The latency is mostly time in the queue, so it decreases as throughput increases",
            ),
        ],
        facts={
            "per_second": {side: {str(n): round(middle(side, n, "per_second")) for n in CLIENTS} for side in _SIDES},
            "p95_ms": {side: {str(n): round(middle(side, n, "p95_ms"), 1) for n in CLIENTS} for side in _SIDES},
            "times_async": {str(n): round(ratio(n), 2) for n in CLIENTS},
        },
    )
