"""The database of one worker: it runs one statement, or several in a transaction."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy.sql.elements import ClauseElement

from app.connection_leases import Leases
from app.database.clients import current_client
from app.database.connection import Connector
from app.database.executor import Executor, StatementObserver
from app.database.failover import leaving_frozen_hosts
from app.database.failures import NONE_KNOWN, ConstraintErrors
from app.database.hanging_writes import HangingWrites
from app.database.lanes import slow
from app.database.logins import answers
from app.database.pool import CANCEL_SECONDS, Pool, PoolObserver, PoolState
from app.database.sharing import sharing
from app.database.statements import CompiledStatement, StatementCompiler, named
from app.database.transaction import Transaction, transaction_on
from app.database_url import DatabaseUrl
from app.errors import DatabaseUnavailableError, OverloadedError, SlowRequestsBusyError, StatementTimeoutError

__all__ = (
    "Database",
    "PoolObserver",
    "PoolState",
    "ReadDatabase",
    "StatementRunner",
    "Transaction",
    "connect",
    "current_client",
    "named",
    "slow",
)

SLOW_STATEMENT_SHARE: Final = 5
"""A slow statement may run for this part of a statement's time."""

CHECK_SECONDS = 2.0
"""How long the check of the database may take, from when it has a connection; not longer than any statement may."""


class DatabaseObserver(PoolObserver, StatementObserver, Protocol):
    """Receives what the metrics show of a database."""


class StatementRunner(Protocol):
    """Runs statements: a `Database` commits each by itself, a `Transaction` all together."""

    async def run(
        self,
        statement: ClauseElement,
        parameters: Mapping[str, Any],
        *,
        constraint_errors: ConstraintErrors = NONE_KNOWN,
    ) -> Sequence[asyncpg.Record]:
        """Run one statement and fetch all its rows; its arguments are those of `Database.run`."""
        ...


class ReadDatabase(StatementRunner, Protocol):
    """Runs the statements of a request that only reads: a `Database`, or a `replicas.Reader`."""

    @property
    def primary(self) -> "Database":
        """The server that takes writes, for what a replica cannot answer."""


class Database:
    """The connections of one worker. A request holds one only while its statement runs.

    SQLAlchemy compiles the statements, asyncpg runs them: a statement by SQLAlchemy's
    `Connection.execute` takes twice the CPU time.
    """

    def __init__(
        self, pool: Pool, *, statement_seconds: float, through_pgbouncer: bool, observer: StatementObserver
    ) -> None:
        slow_seconds = statement_seconds / SLOW_STATEMENT_SHARE
        self._check_seconds = min(CHECK_SECONDS, statement_seconds)
        self._pool = pool
        self._through_pgbouncer = through_pgbouncer
        self._quick = pool.lane(is_slow=False)
        self._slow = pool.lane(is_slow=True)
        self._writes = HangingWrites()
        self._compiler = StatementCompiler()
        self._executor = Executor(
            pool, statement_seconds=statement_seconds, slow_seconds=slow_seconds, observer=observer
        )
        self._check_turn = asyncio.Lock()

    @property
    def primary(self) -> "Database":
        """This database itself: see `ReadDatabase`."""
        return self

    @property
    def state(self) -> PoolState:
        """The pool at this moment."""
        return self._pool.state

    async def run(
        self,
        statement: ClauseElement,
        parameters: Mapping[str, Any],
        *,
        constraint_errors: ConstraintErrors = NONE_KNOWN,
    ) -> Sequence[asyncpg.Record]:
        """Run one statement, which commits by itself, and fetch all its rows.

        Args:
            statement: One that is built once, not again for each call: it is compiled and kept.
            parameters: The values of its bound parameters, by name.
            constraint_errors: What to raise when a constraint is violated, by the constraint's name.

        Raises:
            OverloadedError: Too many requests wait for a connection already.
            PoolExhaustedError: No connection came free in time.
            SlowRequestsBusyError: Either of these, for a statement that is marked as `slow`.
            StatementTimeoutError: The statement ran past its time.
            DatabaseUnavailableError: The server is out of reach or refuses to write.
            SchemaOutdatedError: The server lacks a table, column or function that the statement names.
            DatabasePermissionDeniedError: The role lacks a privilege.
            DatabaseSetupError: The settings do not fit the database.
            ConstraintViolatedError: The row breaks a constraint that is not in `constraint_errors`, has a value that
                its column does not take, or is refused by a trigger.
            UnstorableTextError: The database's encoding lacks a character of a value.
            DatabaseRefusedError: The server reported an unknown error.
        """
        compiled = self._compiler.compile(statement)
        # While writes hang they share the slow lane: reads would find no connection until the end of their time.
        is_slow = compiled.is_slow or (compiled.may_write and self._writes.hang(self._quick.size))
        client, lane = current_client.get(), self._slow if is_slow else self._quick
        try:
            connection = await self._pool.acquire(client, lane)
        except SlowRequestsBusyError as error:
            if compiled.is_slow:
                raise
            raise OverloadedError(by_own_share=error.by_own_share) from None
        succeeded = False
        if compiled.may_write:
            self._writes.begin(connection)
        try:
            rows = await self._executor.fetch(connection, compiled, parameters, constraint_errors)
            succeeded = True
        finally:
            if compiled.may_write:
                self._writes.end(connection, succeeded=succeeded)
            # After a cancellation, too: asyncpg cancels the statement in the server, and the pool waits for that.
            self._pool.release(connection, client, lane)
        return rows

    def reconnect(self) -> None:
        """Replace every connection before it is used again, at most once a second."""
        self._pool.replace_all()

    def drop_connections(self) -> None:
        """Close every connection now, and fail the requests that wait for one: the server does not answer."""
        self._pool.drop_all()

    async def close(self) -> None:
        """Close the idle connections now, and each other one when it is released. It may be called again."""
        await self._pool.close()

    async def answers(self, seconds: float) -> bool:
        """Whether a server that it is connected to answers at all within this time. One that is busy does.

        False also through PgBouncer, which answers by itself.
        """
        if self._through_pgbouncer:
            return False
        hosts = {connection.host for connection in self._pool.connections}
        return any(await asyncio.gather(*(answers(host, seconds) for host in hosts)))

    async def check(self, statement: ClauseElement) -> Sequence[asyncpg.Record]:
        """Run a statement that checks the database, and fetch all its rows. One check runs at a time.

        It takes the first connection that comes free, before all requests that wait: a check that
        waits in their queue would say how busy this worker is, and nothing about the database.

        Raises:
            StatementTimeoutError: The server took longer than CHECK_SECONDS, and has cancelled the statement. It works.
            DatabaseUnavailableError: The server is out of reach, or answers neither the statement nor its cancellation.
            RequestError: As `run` does, but for what is raised because the worker is busy.
        """
        async with self._check_turn:
            return await self._check(self._compiler.compile(statement))

    async def _check(self, compiled: CompiledStatement) -> Sequence[asyncpg.Record]:
        connection = await self._pool.acquire_first()
        try:
            return await self._executor.fetch(connection, compiled, {}, NONE_KNOWN, seconds=self._check_seconds)
        except StatementTimeoutError:
            # asyncpg closes the connection if its request to cancel does not reach the server.
            if await connection.cancelled(CANCEL_SECONDS) and not connection.is_closed():
                raise
            self._pool.replace_all()
            raise DatabaseUnavailableError from ConnectionError("the server answers no statement")
        finally:
            self._pool.release(connection, None, self._quick)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Several statements that are committed together at the end of the block, or rolled back if it raises.

        The isolation level is read committed. The transaction holds one connection from its beginning to its end.
        A deferred constraint is checked at the end, with the `constraint_errors` of all statements.

        Raises:
            RequestError: As `run` does.
        """
        client = current_client.get()
        connection = await self._pool.acquire(client, self._quick)
        try:
            async with transaction_on(connection, self._executor, self._compiler) as transaction:
                yield transaction
        finally:
            self._pool.release(connection, client, self._quick)


@asynccontextmanager
async def connect(
    read_url: Callable[[], DatabaseUrl],
    *,
    connections: int | Leases,
    wait_seconds: float,
    statement_seconds: float,
    connection_seconds: float,
    through_pgbouncer: bool,
    prepared_statements: bool,
    observer: DatabaseObserver,
    create: Callable[..., Database] = Database,
) -> AsyncIterator[Database]:
    """The database of one worker. The first statement opens the first connection.

    Args:
        read_url: Returns the address of PostgreSQL. It is called again when the server refuses the login.
        connections: How many connections may be open at the same time; or the leases for them, whose number changes.
        wait_seconds: How long a request waits for a free connection.
        statement_seconds: How long a statement may run. The server cancels it then; if the server does
            not answer at all, the client closes the connection half a second later. A slow statement may run
            for a fifth of it.
        connection_seconds: How old a connection may become. It is replaced then.
        through_pgbouncer: Whether the URL leads to PgBouncer. It refuses the settings that limit a
            statement, so the role must have them.
        prepared_statements: Whether a statement is prepared once for each connection. PgBouncer in
            transaction mode loses prepared statements unless `max_prepared_statements` is set.
        observer: Receives the pool's events and the durations of statements.
        create: Makes the database, with the arguments of `Database`.
    """
    connector = Connector(
        read_url,
        wait_seconds=wait_seconds,
        statement_seconds=statement_seconds,
        connection_seconds=connection_seconds,
        through_pgbouncer=through_pgbouncer,
        prepared_statements=prepared_statements,
    )
    size = connections if isinstance(connections, int) else 0
    pool = Pool(connector.open, size=size, wait_seconds=wait_seconds, observer=observer)
    async with sharing(pool, connections) if isinstance(connections, Leases) else nullcontext():
        try:
            async with leaving_frozen_hosts(pool, connector):
                yield create(
                    pool,
                    statement_seconds=statement_seconds,
                    through_pgbouncer=through_pgbouncer,
                    observer=observer,
                )
        finally:
            connector.close()
            await pool.close()
