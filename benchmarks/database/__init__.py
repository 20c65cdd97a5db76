"""Compares ways to use the database: connections, engines, transactions, and checks for closed connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any

import asyncpg
from sqlalchemy import TextClause, event, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from benchmarks.harness.databases import databases
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.harness.timing import Times, in_turns_async

CALLS = 40
ROUNDS = 15

_METHOD = f"""
Statements run one after the other over one connection, in one process. The figures are CPU time of the calling thread
and total time, the median of {ROUNDS} rounds taken in turns. The server is on the same machine; over a network each
round trip adds its time, and opening a connection takes several. Ratios of the total time are paired within a round.
"""
_READ = text("SELECT id, name FROM items WHERE id = :id")
_WRITE = text("UPDATE items SET price = price WHERE id = :id")

Way = Callable[[], Awaitable[object]]


def run() -> Report:
    """Run the benchmark."""
    progress = Progress("database", 3)
    progress.step("CPU time")
    with databases() as made:
        url = made.create()
        cpu = asyncio.run(_measure(url, time.thread_time))
        progress.step("total time")
        wall = asyncio.run(_measure(url, time.perf_counter))
    progress.end()
    tables = [_table(question, cpu[question], wall[question]) for question in cpu]
    return Report(
        title="Ways to use the database",
        method=_METHOD,
        tables=tables,
        plot=Plot(
            title="Total time for one statement",
            unit="µs",
            groups={
                question: {name: median(values) for name, values in times.items()} for question, times in wall.items()
            },
        ),
        claims=_claims(wall),
        facts={
            name: {way: round(median(values), 1) for times in taken.values() for way, values in times.items()}
            for name, taken in {"cpu_us": cpu, "wall_us": wall}.items()
        },
    )


async def _measure(url: str, clock: Callable[[], float]) -> dict[str, Times]:
    async with _ways(url) as questions:
        return {
            question: await in_turns_async(ways, calls=CALLS, rounds=ROUNDS, clock=clock)
            for question, ways in questions.items()
        }


@asynccontextmanager
async def _ways(url: str) -> AsyncIterator[dict[str, dict[str, Way]]]:
    async with AsyncExitStack() as stack:

        def engine(**options: Any) -> AsyncEngine:
            made = _engine(url, **options)
            stack.push_async_callback(made.dispose)
            return made

        pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
        stack.push_async_callback(pool.close)
        listening = engine(isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        event.listen(listening.sync_engine, "checkout", _refuse_dead_connection)
        autocommit = engine(isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        transactional, no_pool = engine(), engine(poolclass=NullPool)
        pinging = engine(isolation_level="AUTOCOMMIT", pool_reset_on_return=None, pool_pre_ping=True)
        yield {
            "A connection": {
                "one for each request": lambda: _by_connection(url),
                "from asyncpg's pool": lambda: pool.fetch("SELECT id, name FROM items WHERE id = $1", 5),
            },
            "An engine": {
                "one for each request": lambda: _by_engine(url),
                "one without a pool": lambda: _in_transaction(no_pool, _READ),
                "one for the process": lambda: _in_transaction(transactional, _READ),
            },
            "A read": {
                "BEGIN, SELECT, ROLLBACK": lambda: _in_transaction(transactional, _READ, commit=False),
                "one statement in autocommit": lambda: _alone(autocommit, _READ),
            },
            "A write": {
                "BEGIN, UPDATE, COMMIT": lambda: _in_transaction(transactional, _WRITE),
                "one statement in autocommit": lambda: _alone(autocommit, _WRITE),
            },
            "A check for a closed connection": {
                "by a pre-ping": lambda: _alone(pinging, _READ),
                "by a checkout listener": lambda: _alone(listening, _READ),
            },
        }


def _engine(url: str, **options: Any) -> AsyncEngine:
    return create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1), **options)


def _refuse_dead_connection(connection: Any, _record: Any, _proxy: Any) -> None:
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


async def _by_connection(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.fetch("SELECT id, name FROM items WHERE id = $1", 5)
    await connection.close()


async def _by_engine(url: str) -> None:
    engine = _engine(url)
    await _in_transaction(engine, _READ)
    await engine.dispose()


async def _in_transaction(engine: AsyncEngine, statement: TextClause, *, commit: bool = True) -> None:
    async with engine.connect() as connection:
        await connection.execute(statement, {"id": 5})
        if commit:
            await connection.commit()


async def _alone(engine: AsyncEngine, statement: TextClause) -> None:
    async with engine.connect() as connection:
        await connection.execute(statement, {"id": 5})


def _table(question: str, cpu: Times, wall: Times) -> Table:
    last = list(wall.values())[-1]
    rows = [
        [way, format_number(median(cpu[way])), format_number(median(taken)), str(paired(taken, last))]
        for way, taken in wall.items()
    ]
    return Table(title=question, columns=["", "CPU, µs", "total, µs", "total, relative to the last row"], rows=rows)


def _claims(wall: dict[str, Times]) -> list[Claim]:
    def times(question: str) -> str:
        ways = list(wall[question].values())
        return f"{paired(ways[0], ways[-1]).median:.1f} times faster for one statement"

    return [
        Claim(
            claimed="A pool instead of a connection a request",
            measured=times("A connection"),
            why="Kept: opening a connection takes several round trips and starts a server process",
        ),
        Claim(
            claimed="One engine instead of an engine a request",
            measured=times("An engine"),
            why="Kept: a new engine connects, compiles every statement and looks up types again",
        ),
        Claim(
            claimed="A read in autocommit instead of BEGIN and ROLLBACK",
            measured=times("A read"),
            why="Kept: one round trip instead of three",
        ),
        Claim(
            claimed="A write in autocommit instead of BEGIN and COMMIT",
            measured=times("A write"),
            why="Kept: one statement is atomic by itself, and the answer means that it is committed",
        ),
        Claim(
            claimed="A checkout listener instead of `pool_pre_ping`",
            measured=times("A check for a closed connection"),
            why="Kept: the driver knows when a connection is closed, which saves a round trip",
        ),
    ]
