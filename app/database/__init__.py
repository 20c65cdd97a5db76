"""The database of one worker: it runs one statement, or a transaction where one statement cannot say it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, cast

import asyncpg
from sqlalchemy import ExceptionContext, PoolProxiedConnection, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.util import greenlet_spawn

from app.database.admission import Admission, QueueObserver
from app.database.failures import is_read_only, is_stale_plan, named
from app.database.opening import make_engine
from app.errors import DatabaseUnavailableError, StatementTimeoutError

REPLACE_SECONDS = 1.0
"""How often at most all connections are replaced because the server only reads."""

COMPILED_STATEMENTS = 200
"""More than this code has. A statement that is made anew for each call would fill the memory unseen."""


class PoolObserver(QueueObserver, Protocol):
    """Who wants to know what the pool does."""

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
    """The connections of one worker. A request holds one only while its statement runs.

    SQLAlchemy compiles the statements and keeps the pool, asyncpg runs them: a
    statement by `Connection.execute` takes twice the CPU time.
    """

    def __init__(self, engine: AsyncEngine, *, size: int, wait_seconds: float, observer: PoolObserver) -> None:
        self._engine = engine
        self._pool = cast(QueuePool, engine.pool)
        self._admission = Admission(size, wait_seconds=wait_seconds, observer=observer)
        self._observer = observer
        self._idle: list[PoolProxiedConnection] = []
        """Checked out of the pool, used by nobody: checking one in and out nearly doubles the time of `run`."""
        self._outdated_before = float("-inf")
        self._compiled: dict[ClauseElement, tuple[str, dict[str, Any]]] = {}
        event.listen(engine.sync_engine, "checkout", self._refuse_dead_connection)
        event.listen(engine.sync_engine, "handle_error", self._name_failure)
        event.listen(engine.sync_engine, "connect", self._note_opened)
        event.listen(engine.sync_engine, "close", lambda *_: observer.pool_closed())

    @property
    def state(self) -> PoolState:
        """The pool at this moment."""
        return PoolState(
            size=self._admission.places,
            open=self._pool.checkedout() + self._pool.checkedin(),
            in_use=self._pool.checkedout() - len(self._idle),
            waiting=self._admission.waiting,
        )

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
        await self._admission.enter(may_be_shed=may_be_shed)
        try:
            try:
                return await self._fetch(sql, values)
            except _StalePlanError:
                return await self._fetch(sql, values)
        finally:
            self._admission.leave()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Several statements that hold together, on a connection of their own; it commits at the end.

        Raises:
            RequestError: As `run` does.
        """
        await self._admission.enter()
        try:
            if self._idle:
                self._idle.pop().close()  # into the pool, from where SQLAlchemy takes it
            async with self._engine.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    yield connection
        finally:
            self._admission.leave()

    def release(self) -> None:
        """Give the idle connections back to the pool, which can close them then."""
        while self._idle:
            self._idle.pop().close()

    def _compile(self, statement: ClauseElement) -> tuple[str, dict[str, Any]]:
        """The statement's SQL, and its parameters in their order with the values they have by themselves."""
        if statement not in self._compiled:
            if len(self._compiled) == COMPILED_STATEMENTS:
                raise RuntimeError("Too many statements: make each once, not anew for each call.")
            compiled = cast(SQLCompiler, statement.compile(dialect=self._engine.dialect))
            names = compiled.positiontup or ()
            self._compiled[statement] = compiled.string, {name: compiled.params[name] for name in names}
        return self._compiled[statement]

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[asyncpg.Record]:
        # SQLAlchemy waits in greenlets only, and making one takes as long as all the rest of this.
        connection = self._idle_connection() or cast(PoolProxiedConnection, await greenlet_spawn(self._pool.connect))
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
            if connection.is_valid:
                self._idle.append(connection)
            else:
                connection.close()

    def _idle_connection(self) -> PoolProxiedConnection | None:
        """The connection used last, if it lives: that is found without a round trip, which a pre-ping costs."""
        while self._idle:
            connection = self._idle.pop()
            driver = cast(asyncpg.Connection, connection.driver_connection)
            if not driver.is_closed() and connection.info["opened"] >= self._outdated_before:
                return connection
            connection.invalidate()
            connection.close()
        return None

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

    Args:
        dsn: As asyncpg reads it, so `sslmode`, several hosts and socket folders work as in libpq.
        prepared_statements: Whether a statement may be prepared once and run often. PgBouncer in
            transaction mode forgets the name of one, unless `max_prepared_statements` is set.
    """
    engine = make_engine(
        dsn,
        connections=connections,
        statement_seconds=statement_seconds,
        through_pgbouncer=through_pgbouncer,
        prepared_statements=prepared_statements,
    )
    database = Database(engine, size=connections, wait_seconds=wait_seconds, observer=observer)
    try:
        yield database
    finally:
        database.release()
        await engine.dispose()
