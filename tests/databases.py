"""The application's own `Database` for tests: short limits, and ways to see how statements end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from sqlalchemy import bindparam, text

from app import NAME, database
from app.database import Database
from app.database_url import DatabaseUrl
from app.errors import RequestError

ONE = text("SELECT 1 AS one")
PID = text("SELECT pg_backend_pid() AS pid")
SLEEP = text("SELECT pg_sleep(:seconds)").bindparams(bindparam("seconds"))
COUNT = text("SELECT count(*) FROM samples")
INSERT = text("INSERT INTO samples (name) VALUES ('Kettle') RETURNING id")
BACKENDS = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{NAME}'"


class PoolEvents:
    """An observer that keeps the pool's events."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.timed_out = 0
        self.shed = Counter[str]()
        self.open = 0
        self.statements: list[tuple[str, float]] = []
        """The name and the duration in seconds of each statement that ran."""

    def pool_waited(self, seconds: float) -> None:
        """Keep how long a request waited."""
        self.seconds.append(seconds)

    def pool_timed_out(self) -> None:
        """Count a request that got no connection in time."""
        self.timed_out += 1

    def request_shed(self, reason: str) -> None:
        """Count a refusal."""
        self.shed[reason] += 1

    def statement_ran(self, name: str, seconds: float) -> None:
        """Keep the duration of a statement."""
        self.statements.append((name, seconds))

    def pool_opened(self) -> None:
        """Count an open connection."""
        self.open += 1

    def pool_closed(self) -> None:
        """Count it no longer."""
        self.open -= 1


@asynccontextmanager
async def connected(url: str | DatabaseUrl, **limits: Any) -> AsyncIterator[Database]:
    """The database at this URL; a test that waits in vain for a connection names a shorter `wait_seconds`."""
    defaults: dict[str, Any] = {
        "connections": 3,
        "wait_seconds": 5.0,
        "statement_seconds": 1.0,
        "connection_seconds": 1800.0,
        "through_pgbouncer": False,
        "prepared_statements": True,
        "observer": PoolEvents(),
    }
    address = url if isinstance(url, DatabaseUrl) else DatabaseUrl.parse(url)
    async with database.connect(lambda: address, **defaults | limits) as running:
        yield running


async def outcome(running: Awaitable[object]) -> tuple[str, float]:
    """How a statement ended, and after how many seconds."""
    started = perf_counter()
    try:
        await running
    except RequestError as error:
        return error.code, perf_counter() - started
    return "ok", perf_counter() - started


async def outcomes(*running: Awaitable[object]) -> list[str]:
    """How statements that run at the same time ended."""
    return [code for code, _ in await asyncio.gather(*map(outcome, running))]


def sleep(database: Database, seconds: float) -> Coroutine[Any, Any, object]:
    """A statement that takes this long."""
    return database.run(SLEEP, {"seconds": seconds})


async def open_all(database: Database) -> None:
    """Open every connection of the pool."""
    await asyncio.gather(*(sleep(database, 0.1) for _ in range(database.state.size)))
    assert database.state.size == database.state.open


async def until_free(database: Database) -> None:
    """Return when no connection is in use. One whose statement is being cancelled is, for a second at most."""
    async with asyncio.timeout(20):
        while database.state.in_use:  # noqa: ASYNC110  # it changes by itself
            await asyncio.sleep(0.01)


async def assert_all_connections_work(database: Database) -> None:
    """Every connection is free and works, and no request waits."""
    await until_free(database)
    for _ in range(3):
        running = [sleep(database, 0.01) for _ in range(database.state.size)]
        assert ["ok"] * len(running) == await outcomes(*running)
    assert (0, 0) == (database.state.in_use, database.state.waiting)
    assert database.state.open <= database.state.size
