"""The sides of the comparison, and their measurement in turns."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.harness.databases import databases, restore
from benchmarks.harness.load import CASES, Sample, measure, require_wrk, warm_up
from benchmarks.harness.progress import Progress
from benchmarks.harness.servers import Server, service, uvicorn

FLOOR = "floor"
FLOOR_WITHOUT_RESET = "floor without the pool's reset"
SERVICE = "this service"
COMMON = "common pattern"

Samples = dict[tuple[str, str], list[Sample]]
"""By case and side, one sample a round."""


@contextmanager
def running(sides: Sequence[str]) -> Iterator[dict[str, tuple[Server, str]]]:
    """Start the servers of these sides, each with its own database in one PostgreSQL; yield them with its URL."""
    require_wrk()
    with databases() as made, ExitStack() as stack:
        servers = {}
        for side in sides:
            url = made.create()
            servers[side] = stack.enter_context(_server(side, url)), url
        yield servers


def take_turns(
    servers: dict[str, tuple[Server, str]], progress: Progress, samples: Samples, *, rounds: int, seconds: float
) -> None:
    """Measure every side in every case once a round, in rotating order."""
    for number in range(rounds):
        for case in CASES:
            sides = list(servers)
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                progress.step(f"{case.name}, {side}, round {number + 1}")
                server, url = servers[side]
                samples.setdefault((case.name, side), []).append(measure(server, case, seconds=seconds))
                if case.creates:
                    restore(url)


def warm_up_all(servers: dict[str, tuple[Server, str]]) -> None:
    """Warm up every side."""
    for server, url in servers.values():
        for case in CASES:
            warm_up(server, case)
        restore(url)


def _server(side: str, url: str) -> Server:
    match side:
        case "floor":
            return uvicorn(side, "benchmarks.request.floor:with_reset", url)
        case "floor without the pool's reset":
            return uvicorn(side, "benchmarks.request.floor:without_reset", url)
        case "common pattern":
            return uvicorn(side, "benchmarks.request.common_pattern:app", url)
    return service(side, url, DATABASE_CONNECTIONS="10")
