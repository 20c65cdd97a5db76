"""The sides of the comparison, and how they take turns under load."""

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
    """The sides as running servers, each with the URL of a database of its own in one PostgreSQL."""
    require_wrk()
    with databases() as made, ExitStack() as stack:
        servers = {}
        for side in sides:
            url = made.make()
            servers[side] = stack.enter_context(_server(side, url)), url
        yield servers


def take_turns(
    servers: dict[str, tuple[Server, str]], progress: Progress, samples: Samples, *, rounds: int, seconds: float
) -> None:
    """Measure every side in every case once a round, in an order that changes."""
    for number in range(rounds):
        for case in CASES:
            sides = list(servers)
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                progress.step(f"{case.name}, {side}, round {number + 1}")
                server, url = servers[side]
                samples.setdefault((case.name, side), []).append(measure(server, case, seconds=seconds))
                if case.creates:
                    restore(url)


def warm(servers: dict[str, tuple[Server, str]]) -> None:
    """Let every side answer for a moment."""
    for server, url in servers.values():
        for case in CASES:
            warm_up(server, case)
        restore(url)


def _server(side: str, url: str) -> Server:
    match side:
        case "floor":
            return uvicorn(side, "benchmarks.request.floor:as_it_comes", url)
        case "floor without the pool's reset":
            return uvicorn(side, "benchmarks.request.floor:without_reset", url)
        case "common pattern":
            return uvicorn(side, "benchmarks.request.common_pattern:app", url)
    return service(side, url, DATABASE_CONNECTIONS="20")  # of which a reload may take half
