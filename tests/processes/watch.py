"""Polls something while a test does something else."""

import asyncio
import http.client
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg

from app import NAME
from tests.processes.scrape import Samples, scrape

T = TypeVar("T")

_BACKENDS = f"""
SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' AND datname = current_database()
"""


@contextmanager
def polling(read: Callable[[], T], *, every: float = 0.05) -> Iterator[list[T]]:
    """The values that `read` has returned. A thread calls it until the block ends.

    Raises:
        Exception: `read` has raised this.
    """
    values: list[T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            while not done.is_set():
                values.append(read())
                done.wait(every)
        except Exception as error:  # noqa: BLE001  # raised below, in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield values
    finally:
        done.set()
        thread.join(30)
    assert not thread.is_alive(), "`read` did not return"
    if failures:
        raise failures[0]


@contextmanager
def counters_never_fall(port: int) -> Iterator[list[Samples]]:
    """Scrapes until the block ends. No counter may decrease or disappear."""

    def read() -> Samples:
        try:
            return scrape(port, counters_only=True)
        except (ConnectionResetError, http.client.IncompleteRead):
            # The worker that was asked may have been killed. Ask again, as a scraper does at its next interval.
            return scrape(port, counters_only=True)

    with polling(read, every=0.1) as scrapes:
        yield scrapes
    for before, after in itertools.pairwise(scrapes):
        decreased = {key: (value, after.get(key)) for key, value in before.items() if after.get(key, -1) < value}
        assert {} == decreased


@contextmanager
def counting_backends(url: str) -> Iterator[list[int]]:
    """The number of the service's connections that PostgreSQL reports, read every 20 ms."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url, user="postgres"))

    def read() -> int:
        return int(loop.run_until_complete(connection.fetchval(_BACKENDS)))

    try:
        with polling(read, every=0.02) as counts:
            yield counts
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def print_figures(**figures: float) -> None:
    """Print what a test has measured. `make test-faults` shows it, and docs/operations/failures.md quotes it."""
    print("measured:", ", ".join(f"{name} {round(value, 3)}" for name, value in figures.items()))  # noqa: T201
