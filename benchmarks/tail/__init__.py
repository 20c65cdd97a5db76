"""Measures the slowest reads at half of the capacity, during scrapes and during a reload."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.harness.databases import databases
from benchmarks.harness.load import CASES, measure, require_wrk, warm_up
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import Server, service, uvicorn
from benchmarks.request.sides import FLOOR, SERVICE
from benchmarks.tail.load import CONNECTIONS, send
from tests.processes.scrape import fetch
from tests.processes.server import eventually

ROUNDS = 3
SECONDS = 15.0
"""The interval of scrapes, so that each round has one."""

SCRAPERS = 16

_EVENT_AFTER = SECONDS / 3
_CAPACITY_SECONDS = 3.0
_READ = CASES[0]
_QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_METHOD = f"""
One worker process answers reads by id. Its capacity is what wrk reaches in {_CAPACITY_SECONDS:g} s with 32 connections.
Then a client sends half of that at a fixed rate over {CONNECTIONS} connections, in turns of {SECONDS:g} s to each side.
A request is late from the moment at which it should have been sent, so the time in which it waits for a connection
counts. This service has all controls on, and another process reads its log from a pipe. In each turn it has one
scrape, or {SCRAPERS} at once, or one scrape and one reload (SIGHUP). The floor is never disturbed. Times are medians of
{ROUNDS} rounds; "relative to the floor" is the median of the ratios of the p99 in each round, with their range.
"""


@dataclass(frozen=True, slots=True)
class _State:
    """What happens while the requests of a turn are sent."""

    name: str
    side: str
    happens: Callable[[Server], None] = lambda _: None


def run() -> Report:
    """Run the benchmark."""
    times: dict[str, list[dict[str, float]]] = {}
    progress = Progress("tail", ROUNDS * len(_STATES) + 1)
    with _running() as servers, _client_process() as client:
        progress.step("finding the capacity")
        capacity = {
            name: measure(server, _READ, seconds=_CAPACITY_SECONDS).per_second for name, server in servers.items()
        }
        rate = min(capacity.values()) / 2
        for number in range(ROUNDS):
            for state in _STATES[number:] + _STATES[:number]:
                progress.step(f"{state.name}, round {number + 1}")
                server = servers[state.side]
                sending = client.submit(send, server.port, _READ.path, rate=rate, seconds=SECONDS)
                time.sleep(_EVENT_AFTER)
                state.happens(server)
                times.setdefault(state.name, []).append(_quantiles(sending.result()))
    progress.end()
    return _report(capacity, rate, times)


def _report(capacity: dict[str, float], rate: float, times: dict[str, list[dict[str, float]]]) -> Report:
    taken = {
        name: {quantile: median(turn[quantile] for turn in turns) for quantile in _QUANTILES}
        for name, turns in times.items()
    }
    p99 = {state.name: [turn["p99"] for turn in times[state.name]] for state in _STATES}
    of_floor = {name: paired(values, p99[_STATES[0].name]) for name, values in p99.items()}
    rows = [
        [state.name, *map(format_number, taken[state.name].values()), str(of_floor[state.name])] for state in _STATES
    ]
    capacities = [[name, format_number(value)] for name, value in capacity.items()]
    return Report(
        title="The slowest reads",
        method=_METHOD,
        tables=[
            Table(
                title=f"{format_number(rate)} requests a second",
                columns=["", *(f"{name}, ms" for name in _QUANTILES), "p99, relative to the floor"],
                rows=rows,
            ),
            Table(title="Capacity", columns=["", "requests a second"], rows=capacities),
        ],
        plot=Plot(
            title="Time within which 99 % of the reads are answered",
            unit="ms",
            groups={state.name: {"p99": taken[state.name]["p99"]} for state in _STATES},
        ),
        facts={
            "per_second": round(rate),
            "capacity": {name: round(value) for name, value in capacity.items()},
            "milliseconds": {
                name: {quantile: round(value, 3) for quantile, value in values.items()}
                for name, values in taken.items()
            },
            "p99_relative_to_floor": {name: round(ratio.median, 2) for name, ratio in of_floor.items()},
        },
    )


@contextmanager
def _running() -> Iterator[dict[str, Server]]:
    require_wrk()
    with (
        databases() as made,
        uvicorn(FLOOR, "benchmarks.request.floor:with_reset", made.create()) as floor,
        replace(service(SERVICE, made.create(), DATABASE_CONNECTIONS="10"), is_piped=True) as this,
    ):
        for server in (floor, this):
            warm_up(server, _READ)
        yield {FLOOR: floor, SERVICE: this}


@contextmanager
def _client_process() -> Iterator[ProcessPoolExecutor]:
    """A process that does nothing else than sending requests. It has started when the block begins."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(format_number, 1).result()
        yield executor


def _scrape(server: Server) -> None:
    status, _ = fetch(server.port, "/metrics")
    if status != 200:
        raise RuntimeError(f"The scrape was answered {status}.")


def _scrape_at_once(server: Server) -> None:
    with ThreadPoolExecutor(SCRAPERS) as scrapers:
        list(scrapers.map(_scrape, [server] * SCRAPERS))


def _scrape_and_reload(server: Server) -> None:
    _scrape(server)
    old = set(server.workers())
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: old.isdisjoint(server.workers()), seconds=60, what="a new worker")


def _quantiles(seconds: list[float]) -> dict[str, float]:
    """The quantiles in milliseconds."""
    ordered = sorted(seconds)
    return {name: ordered[int(quantile * len(ordered))] * 1000 for name, quantile in _QUANTILES.items()}


_STATES = (
    _State("floor", FLOOR),
    _State("this service", SERVICE),
    _State("with a scrape", SERVICE, _scrape),
    _State(f"with {SCRAPERS} scrapes at once", SERVICE, _scrape_at_once),
    _State("with a scrape and a reload", SERVICE, _scrape_and_reload),
)
