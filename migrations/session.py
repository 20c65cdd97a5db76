"""The migration's connections: directly to PostgreSQL, with a lock timeout and a statement timeout."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import cast

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app import NAME
from app.database import SLOW_STATEMENT_SHARE, connecting
from app.database.connection import Connection
from app.database.failures import DRIVER_ERRORS
from app.database.peer import is_pooled
from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings import DatabasePooler, Settings

log = structlog.get_logger("migrations")

CONNECT_SECONDS = 10

_SHORTEST_LOCK_SECONDS = 0.001
"""PostgreSQL counts in milliseconds, and takes 0 for no limit."""

_KEEPALIVE = "SET tcp_keepalives_idle TO 30; SET tcp_keepalives_interval TO 10; SET tcp_keepalives_count TO 3"
"""PostgreSQL probes the connection, too: it releases the locks of a migration whose host has died."""

READ_COMMITTED = "SET default_transaction_isolation TO 'read committed'"
"""A stricter default of the database would make a migration fail beside the writes of the service."""

_POOLER_REFUSED = (
    "Migrations need a direct connection to PostgreSQL, and {url} leads to a connection pooler, which does not keep "
    "their lock and timeouts on one server connection: set MIGRATION_DATABASE_URL to the address of PostgreSQL itself."
)

_NOT_WRITABLE = (
    "Migrations need a server that takes writes, and none was found ({cause}): set MIGRATION_DATABASE_URL or "
    "DATABASE_URL to the address of the primary, or run the command again when there is one."
)

_SILENT = "PostgreSQL did not answer the migration's connection within {seconds} s."


class ConnectionsExhaustedError(StartupError):
    """The server, the database or the role has no connection left for this one."""


def check_lock_seconds(settings: Settings) -> None:
    """Refuse a lock timeout that is not shorter than the wait of the requests which queue behind the migration.

    Raises:
        StartupError: MIGRATION_LOCK_SECONDS is set, and is too long.
    """
    is_set = "migration_lock_seconds" in settings.model_fields_set
    if is_set and settings.migration_lock_seconds >= settings.database_wait_seconds:
        raise StartupError(
            f"MIGRATION_LOCK_SECONDS is {settings.migration_lock_seconds:g}, and must be less than "
            f"{settings.database_wait_seconds:g} (DATABASE_WAIT_SECONDS, the wait of a request for a connection): "
            "requests queue behind a migration that waits for a lock, and would fail."
        )


def lock_wait_seconds(settings: Settings) -> float:
    """How long a migration waits for a lock: MIGRATION_LOCK_SECONDS, or half the time of a search if that is shorter.

    A search that queues behind the migration must still have time to run after that wait. The default is at most half
    of DATABASE_WAIT_SECONDS.
    """
    seconds = settings.migration_lock_seconds
    if "migration_lock_seconds" not in settings.model_fields_set:
        seconds = min(seconds, settings.database_wait_seconds / 2)
    half_a_search = settings.database_statement_seconds / SLOW_STATEMENT_SHARE / 2
    return max(_SHORTEST_LOCK_SECONDS, min(seconds, half_a_search))


def timeouts(*, lock_seconds: float, statement_seconds: float) -> str:
    """The statement that sets a session's timeouts. 0 means no timeout, as in PostgreSQL."""
    return (
        f"SELECT set_config('lock_timeout', '{lock_seconds * 1000:.0f}ms', false), "
        f"set_config('statement_timeout', '{statement_seconds * 1000:.0f}ms', false)"
    )


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """The connection that runs the migration.

    Raises:
        ConnectionsExhaustedError: PostgreSQL has no connection left.
        StartupError: PostgreSQL cannot be reached, refuses the connection, or is behind a pooler.
    """
    if settings.migration_database_url is None and settings.database_pooler is not DatabasePooler.NONE:
        raise StartupError(
            _POOLER_REFUSED.format(url=f"with DATABASE_POOLER={settings.database_pooler.value} DATABASE_URL")
        )

    url = settings.read_migration_database_url()

    async def open_with_timeouts() -> asyncpg.Connection:
        connection = await open_connection(
            url,
            timeouts(lock_seconds=lock_wait_seconds(settings), statement_seconds=settings.migration_statement_seconds),
        )
        connection.add_log_listener(_log_warning)
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=open_with_timeouts, hide_parameters=True
    )
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(engine.connect())
        except (DBAPIError, *DRIVER_ERRORS) as error:  # SQLAlchemy runs statements of its own on a new connection.
            raise _failure(error, url) from None
        yield connection


async def open_connection(url: DatabaseUrl, *statements: str) -> asyncpg.Connection:
    """A direct connection to PostgreSQL.

    TCP keepalives from both sides keep it open for as long as a statement takes.

    Args:
        statements: More statements that set the session up.

    Raises:
        ConnectionsExhaustedError: PostgreSQL has no connection left.
        StartupError: PostgreSQL cannot be reached, takes no writes, refuses the connection, or is behind a pooler.
            The message has no part of the URL.
    """
    try:
        opened, _ = await connecting.connect(
            replace(url, session_attributes="read-write"),
            connecting.HostOrder(),
            host_seconds=CONNECT_SECONDS,
            connection_class=Connection,
            statement_cache_size=0,
            server_settings={"application_name": f"{NAME} migrations"},
        )
    except asyncpg.PostgresError as error:
        kind = ConnectionsExhaustedError if isinstance(error, asyncpg.TooManyConnectionsError) else StartupError
        raise kind(f"PostgreSQL refused the migration's connection: {_cause(error, url)}.") from None
    except TimeoutError:
        raise StartupError(_SILENT.format(seconds=CONNECT_SECONDS)) from None
    except connecting.NoWritableServerError as error:
        raise StartupError(_NOT_WRITABLE.format(cause=_cause(error, url))) from None
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, UnicodeError) as error:
        raise StartupError(
            f"PostgreSQL cannot be reached: {_cause(error, url)}. Check that it runs, and the host and port in "
            "MIGRATION_DATABASE_URL or DATABASE_URL."
        ) from None
    connection = cast(Connection, opened)
    try:
        await _set_up(connection, url, statements)
    except BaseException:  # also when it is cancelled
        connection.terminate()
        raise
    return connection


async def _set_up(connection: Connection, url: DatabaseUrl, statements: Iterable[str]) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if await is_pooled(connection):
                raise StartupError(_POOLER_REFUSED.format(url="this URL"))
            connection.keep_alive()
            for statement in (_KEEPALIVE, READ_COMMITTED, *statements):
                await connection.execute(statement)
    except TimeoutError:
        raise StartupError(_SILENT.format(seconds=CONNECT_SECONDS)) from None
    except DRIVER_ERRORS as error:
        raise _failure(error, url) from None


def _failure(error: Exception, url: DatabaseUrl) -> StartupError:
    return StartupError(
        f"The migration's connection to PostgreSQL failed: {_cause(error, url)}. Run the command again."
    )


def _cause(error: Exception, url: DatabaseUrl) -> str:
    """What has happened, in one line: PostgreSQL adds details in the lines below it."""
    if isinstance(error, UnicodeError):  # it quotes the host that it could not encode
        return type(error).__qualname__
    return url.redact(str(error).partition("\n")[0])


def _log_warning(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
    """Log a warning that a revision raises in PostgreSQL. Notices, as of IF EXISTS, are not logged."""
    if message.severity_en == "WARNING":
        log.warning("postgresql_warning", message=message.message)
