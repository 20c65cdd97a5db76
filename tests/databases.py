"""The application's own way to the database, with limits that tests can wait for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from sqlalchemy import bindparam, text

from app import database
from app.database import Database
from app.errors import RequestError

ONE = text("SELECT 1 AS one")
PID = text("SELECT pg_backend_pid() AS pid")
SLEEP = text("SELECT pg_sleep(:seconds)").bindparams(bindparam("seconds"))
COUNT = text("SELECT count(*) FROM items")
INSERT = text("INSERT INTO items (name) VALUES ('Kettle') RETURNING id")
BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'items-api'"


class Waits:
    """Notes what the pool tells its observer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.timed_out = 0
        self.shed = Counter[str]()
        self.open = 0

    def pool_waited(self, seconds: float) -> None:
        """Note a wait."""
        self.seconds.append(seconds)

    def pool_timed_out(self) -> None:
        """Count a request that gave up."""
        self.timed_out += 1

    def request_shed(self, reason: str) -> None:
        """Count a refusal."""
        self.shed[reason] += 1

    def pool_opened(self) -> None:
        """Count a connection."""
        self.open += 1

    def pool_closed(self) -> None:
        """Count it no longer."""
        self.open -= 1


@asynccontextmanager
async def connected(url: str, **limits: Any) -> AsyncIterator[Database]:
    """The database at this URL."""
    defaults: dict[str, Any] = {
        "connections": 3,
        "wait_seconds": 0.5,
        "statement_seconds": 1.0,
        "through_pgbouncer": False,
        "prepared_statements": True,
        "observer": Waits(),
    }
    async with database.connect(url, **defaults | limits) as running:
        yield running


async def outcome(asked):
    """How a statement ended, and after how long."""
    started = perf_counter()
    try:
        await asked
    except RequestError as error:
        return error.code, perf_counter() - started
    return "ok", perf_counter() - started


async def outcomes(*asked):
    """How statements that were asked at once ended."""
    return [code for code, _ in await asyncio.gather(*map(outcome, asked))]


def sleep(database, seconds):
    """A statement that takes so long."""
    return database.run(SLEEP, {"seconds": seconds})


async def open_all(database):
    """Have every connection of the pool opened."""
    await asyncio.gather(*(sleep(database, 0.1) for _ in range(database.state.size)))
    assert database.state.size == database.state.open


async def assert_whole(database):
    """All connections are free, each works, and nobody waits."""
    for _ in range(3):
        at_once = [sleep(database, 0.01) for _ in range(database.state.size)]
        assert ["ok"] * len(at_once) == await outcomes(*at_once)
    assert (0, 0) == (database.state.in_use, database.state.waiting)
    assert database.state.open <= database.state.size
