"""Ways to run a statement, from the ORM down to the driver."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import await_, greenlet_spawn

from app.crud import item as items
from app.crud import item_page
from app.database import Database
from app.models.item import ItemRow
from benchmarks.harness.timing import Times, in_turns_async
from tests.databases import connected

CALLS = 100
CONNECTIONS = 4

_COLUMNS = "id, name, description, price::float8, is_active, created_at, updated_at"
_READ = f"SELECT {_COLUMNS} FROM items WHERE id = $1"
_PAGE = f"SELECT {_COLUMNS} FROM items ORDER BY id LIMIT 20"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    """Everything that a statement may be run with, connected to one database."""

    database: Database
    autocommit: AsyncEngine
    transactional: AsyncEngine
    pool: Any
    pool_without_reset: Any
    connection: Any


async def measure_read(url: str, rounds: int) -> Times:
    """Read one row in each of the ways."""
    async with _connected(url) as ways:
        statement = items._get  # noqa: SLF001  # what `items.get` runs
        sql = str(statement.compile(dialect=ways.autocommit.dialect))
        return await in_turns_async(
            {
                "ORM session, pre-ping, BEGIN and ROLLBACK": lambda: _by_session(ways.transactional),
                "Core on an autocommit engine": lambda: _by_core(ways.autocommit, statement, {"item_id": 5}),
                "the same in one greenlet": lambda: greenlet_spawn(_in_greenlet, ways.autocommit, statement),
                "asyncpg on SQLAlchemy's pool, in one greenlet": lambda: greenlet_spawn(
                    _driver_in_greenlet, ways.autocommit, sql
                ),
                "asyncpg's pool": lambda: ways.pool.fetch(_READ, 5),
                "asyncpg's pool without its reset": lambda: ways.pool_without_reset.fetch(_READ, 5),
                "asyncpg, one connection": lambda: ways.connection.fetch(_READ, 5),
                "here: asyncpg on a connection of our pool": lambda: ways.database.run(statement, {"item_id": 5}),
            },
            calls=CALLS,
            rounds=rounds,
        )


async def measure_page(url: str, rounds: int) -> Times:
    """Read a page of items in each of the ways."""
    async with _connected(url) as ways:
        asked: dict[str, Any] = {"limit": 20, "offset": 0, "is_active": None, "q": None, "count_exactly": False}

        async def rebuilt() -> None:
            item_page._page.cache_clear()  # noqa: SLF001
            ways.database._compiler._compiled.clear()  # noqa: SLF001
            await item_page.page(ways.database, **asked)

        return await in_turns_async(
            {
                "ORM session: rows, then count(*)": lambda: _page_by_session(ways.transactional),
                "here, with a statement built again for each call": rebuilt,
                "asyncpg's pool, without a total": lambda: ways.pool.fetch(_PAGE),
                "asyncpg's pool without its reset, without a total": lambda: ways.pool_without_reset.fetch(_PAGE),
                "here: one statement, built once": lambda: item_page.page(ways.database, **asked),
            },
            calls=CALLS // 2,
            rounds=rounds,
        )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[_Ways]:
    through_sqlalchemy = url.replace("postgresql://", "postgresql+asyncpg://", 1)
    async with AsyncExitStack() as stack:
        ways = _Ways(
            database=await stack.enter_async_context(connected(url, connections=CONNECTIONS, statement_seconds=5)),
            autocommit=create_async_engine(
                through_sqlalchemy, isolation_level="AUTOCOMMIT", pool_size=CONNECTIONS, pool_reset_on_return=None
            ),
            transactional=create_async_engine(through_sqlalchemy, pool_size=CONNECTIONS, pool_pre_ping=True),
            pool=await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS),
            pool_without_reset=await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, reset=_leave),
            connection=await asyncpg.connect(url),
        )
        yield ways
        await ways.connection.close()
        await ways.pool_without_reset.close()
        await ways.pool.close()
        await ways.transactional.dispose()
        await ways.autocommit.dispose()


async def _leave(_connection: Any) -> None:
    """Leave a connection as it is."""


async def _by_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.get(ItemRow, 5)


async def _page_by_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        (await session.scalars(select(ItemRow).order_by(ItemRow.id).limit(20))).all()
        await session.scalar(select(func.count()).select_from(ItemRow))


async def _by_core(engine: AsyncEngine, statement: Select[Any], parameters: dict[str, Any]) -> None:
    async with engine.connect() as connection:
        (await connection.execute(statement, parameters)).all()


def _in_greenlet(engine: AsyncEngine, statement: Select[Any]) -> None:
    with engine.sync_engine.connect() as connection:
        connection.execute(statement, {"item_id": 5}).all()


def _driver_in_greenlet(engine: AsyncEngine, sql: str) -> None:
    connection = engine.sync_engine.raw_connection()
    try:
        await_(cast(Any, connection.driver_connection).fetch(sql, 5))
    finally:
        connection.close()
