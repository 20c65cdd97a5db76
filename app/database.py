"""The database of one worker: it runs one statement, or a transaction where one statement cannot say it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn, Protocol, cast

import asyncpg
from sqlalchemy import ExceptionContext, PoolProxiedConnection, event
from sqlalchemy.exc import DisconnectionError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from app.database_errors import is_read_only, is_stale_plan, named
from app.errors import DatabaseUnavailableError, OverloadedError, PoolExhaustedError, StatementTimeoutError

CONNECT_SECONDS = 1.5
"""How long opening one connection may take. A server that is alive answers within milliseconds."""

ANSWER_SECONDS = 0.5
"""How much longer than the statement's time the client waits before it gives the connection up:
the server cancels first, and only a server that is frozen or cut off does not."""

REPLACE_SECONDS = 1.0
"""How often at most all connections are replaced because the server only reads."""

WAITING_PER_CONNECTION = 20
"""How many requests may wait for each connection; the next one is refused. With statements of
20 ms the last of them waits for 0.4 s. See docs/decisions/0040-load-shedding.md."""

REFUSAL_SECONDS = 0.004
"""How far apart refusals are. A client that asks again at once would otherwise be refused so often that
the worker does little else: a refusal takes a third of what an answer does."""

COMPILED_STATEMENTS = 200
"""More than this code has. A statement that is made anew for each call would fill the memory unseen."""


_UNNAMED = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
"""Every statement has the empty name, which the next one takes over."""


class PoolObserver(Protocol):
    """Who wants to know what the pool does."""

    def pool_waited(self, seconds: float) -> None:
        """A connection came free after so long."""

    def pool_timed_out(self) -> None:
        """A request gave up waiting."""

    def request_shed(self, reason: str) -> None:
        """A request was refused because there are too many."""

    def pool_opened(self) -> None:
        """A connection was opened."""

    def pool_closed(self) -> None:
        """A connection was closed, by whichever side."""


@dataclass(slots=True, kw_only=True)
class PoolState:
    """The pool at this moment, in connections, and requests waiting for one."""

    size: int
    open: int
    in_use: int
    waiting: int


class Database:
    """The connections of one worker. Each is held only while a statement runs.

    SQLAlchemy compiles the statements and keeps the pool, asyncpg runs them: a
    statement by `Connection.execute` takes twice the CPU time.
    """

    def __init__(self, engine: AsyncEngine, *, size: int, wait_seconds: float, observer: PoolObserver) -> None:
        self._engine = engine
        self._pool = cast(QueuePool, engine.pool)
        self._size = size
        self._wait_seconds = wait_seconds
        self._observer = observer
        self._free = asyncio.Semaphore(size)
        self._waiting = 0
        self._refused_last = self._outdated_before = float("-inf")
        self._compiled: dict[ClauseElement, tuple[str, dict[str, Any]]] = {}
        event.listen(engine.sync_engine, "checkout", self._refuse_dead_connection)
        event.listen(engine.sync_engine, "handle_error", self._name_failure)
        event.listen(engine.sync_engine, "connect", self._note_opened)
        event.listen(engine.sync_engine, "close", lambda *_: observer.pool_closed())

    @property
    def state(self) -> PoolState:
        """The pool at this moment."""
        in_use = self._pool.checkedout()
        return PoolState(size=self._size, open=in_use + self._pool.checkedin(), in_use=in_use, waiting=self._waiting)

    async def run(
        self, statement: ClauseElement, parameters: Mapping[str, Any], *, may_be_shed: bool = True
    ) -> Sequence[asyncpg.Record]:
        """Run one statement, which commits by itself, and fetch all its rows.

        A plan that went stale because the schema changed beside it is made anew, once.

        Args:
            statement: One that is made once, not anew for each call: it is compiled and kept.
            parameters: The values of its bound parameters, by name.
            may_be_shed: Whether it may be refused to bear the load, before it has waited.

        Raises:
            OverloadedError: Too many requests wait for a connection already.
            PoolExhaustedError: No connection came free in time.
            StatementTimeoutError: The statement ran past its time.
            DatabaseUnavailableError: The server is out of reach or refuses writing.
            SchemaOutdatedError: The server lacks a table or column that the statement names.
        """
        sql, defaults = self._compile(statement)
        values = [parameters.get(name, default) for name, default in defaults.items()]
        await self._admit(may_be_shed=may_be_shed)
        try:
            try:
                return await self._fetch(sql, values)
            except _StalePlanError:
                return await self._fetch(sql, values)
        finally:
            self._free.release()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Several statements that hold together, on a connection of their own; it commits at the end.

        Raises:
            RequestError: As `run` does.
        """
        await self._admit()
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    yield connection
        finally:
            self._free.release()

    def _compile(self, statement: ClauseElement) -> tuple[str, dict[str, Any]]:
        """The statement's SQL, and its parameters in their order with the values they have by themselves."""
        if statement not in self._compiled:
            if len(self._compiled) == COMPILED_STATEMENTS:
                raise RuntimeError("Too many statements: make each once, not anew for each call.")
            compiled = cast(SQLCompiler, statement.compile(dialect=self._engine.dialect))
            names = compiled.positiontup or ()
            self._compiled[statement] = compiled.string, {name: compiled.params[name] for name in names}
        return self._compiled[statement]

    async def _admit(self, *, may_be_shed: bool = True) -> None:
        """Wait for a place among the connections, in order of arrival, for a bounded time."""
        if not self._free.locked():
            await self._free.acquire()
            return
        if may_be_shed and self._waiting >= self._size * WAITING_PER_CONNECTION:
            await self._refuse()
        started = perf_counter()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            self._observer.pool_timed_out()
            self._observer.request_shed("queue_timeout")
            raise PoolExhaustedError from None
        finally:
            self._waiting -= 1
        self._observer.pool_waited(perf_counter() - started)

    async def _refuse(self) -> NoReturn:
        """Refuse at once, or one after the other where many are, but nobody later than a wait would have ended."""
        now = perf_counter()
        self._refused_last = min(max(now, self._refused_last + REFUSAL_SECONDS), now + self._wait_seconds)
        self._observer.request_shed("queue_full")
        await asyncio.sleep(self._refused_last - now)
        raise OverloadedError

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[asyncpg.Record]:
        connection = await self._connection()
        driver = cast(asyncpg.Connection, connection.driver_connection)
        try:
            return await driver.fetch(sql, *values)
        except asyncpg.PostgresError as error:
            self._note_read_only(error)
            if is_stale_plan(error):
                raise _StalePlanError from error
            raise named(error) or error from error
        except TimeoutError as error:
            connection.invalidate(error)
            raise StatementTimeoutError from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            connection.invalidate(error)
            raise DatabaseUnavailableError from error
        finally:
            # After a cancellation, too: asyncpg stops the statement in the server, and whoever uses
            # the connection next waits for that. Ended here, it would run on beside a new connection.
            connection.close()

    async def _connection(self) -> PoolProxiedConnection:
        """A connection of the pool, in most cases without a round trip; a new one takes several."""
        if self._pool.checkedin():
            # SQLAlchemy waits in greenlets only, and making one takes as long as all the rest of
            # this. An idle connection is not waited for, unless it turns out to be dead.
            with suppress(MissingGreenlet):
                return self._pool.connect()
        return await greenlet_spawn(self._pool.connect)

    def _note_opened(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        self._observer.pool_opened()
        record.info["opened"] = perf_counter()
        record.info["is_new"] = True

    def _note_read_only(self, error: BaseException) -> None:
        """Have all connections replaced when the primary has become a replica: new ones may lead to another server."""
        now = perf_counter()
        if is_read_only(error) and now > self._outdated_before + REPLACE_SECONDS:
            self._outdated_before = now

    def _refuse_dead_connection(self, connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        """Find a connection that died in the pool without a round trip, which a pre-ping costs."""
        is_new = record.info.pop("is_new", False)
        is_closed = connection.driver_connection.is_closed()
        if is_new and is_closed:
            raise DatabaseUnavailableError
        if is_closed or record.info["opened"] < self._outdated_before:
            raise DisconnectionError

    def _name_failure(self, failure: ExceptionContext) -> None:
        """Call what fails in a transaction as `run` does, and nothing that its caller raises."""
        error = failure.original_exception
        if isinstance(error, TimeoutError):
            failure.is_disconnect = True
            failure.invalidate_pool_on_disconnect = False
            raise StatementTimeoutError from error
        self._note_read_only(error)
        if name := named(error):
            raise name from error


class _StalePlanError(Exception):
    """The server's schema changed since the statement was prepared. It has not run."""


@asynccontextmanager
async def connect(
    dsn: str,
    *,
    connections: int,
    wait_seconds: float,
    statement_seconds: float,
    through_pgbouncer: bool,
    prepared_statements: bool,
    observer: PoolObserver,
) -> AsyncIterator[Database]:
    """Make the pool of one worker. The first statement opens the first connection.

    asyncpg reads the URL by itself, so `sslmode`, several hosts and socket folders work as in libpq.

    Args:
        prepared_statements: Whether a statement may be prepared once and run often. PgBouncer in
            transaction mode forgets the name of one, unless `max_prepared_statements` is set.
    """
    options = _options(statement_seconds, through_pgbouncer=through_pgbouncer)
    if not prepared_statements:
        # asyncpg then parses each statement in the round trip that runs it: PgBouncer sends that as a
        # whole to one server connection, and keeps this client on the one that described it before.
        options["statement_cache_size"] = 0

    def open_connection() -> Awaitable[asyncpg.Connection]:
        if not in_greenlet():
            raise MissingGreenlet
        return _open(dsn, options)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        # For `transaction`: SQLAlchemy prepares by itself, besides asyncpg.
        connect_args={"async_creator_fn": open_connection} | ({} if prepared_statements else _UNNAMED),
        isolation_level="AUTOCOMMIT",
        pool_size=connections,
        max_overflow=0,
        pool_use_lifo=True,
        pool_reset_on_return=None,
        hide_parameters=True,
    )
    try:
        yield Database(engine, size=connections, wait_seconds=wait_seconds, observer=observer)
    finally:
        await engine.dispose()


async def _open(dsn: str, options: Mapping[str, Any]) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, **options)
    except Exception as error:
        raise named(error) or error from error


def _options(statement_seconds: float, *, through_pgbouncer: bool) -> dict[str, Any]:
    """How each connection is opened."""
    options: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": statement_seconds + ANSWER_SECONDS,
        "server_settings": {"application_name": "items-api"},
    }
    if through_pgbouncer:
        # PgBouncer refuses the parameters below: the role carries the limits instead.
        return options
    options["server_settings"] |= {
        "statement_timeout": str(int(statement_seconds * 1000)),
        "idle_in_transaction_session_timeout": str(int((statement_seconds + 1) * 1000)),
        "jit": "off",
    }
    return options
