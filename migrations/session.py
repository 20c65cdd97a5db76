"""The migration's connections: directly to PostgreSQL, with a lock timeout and a statement timeout."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app import NAME
from app.database import connecting
from app.database.peer import is_pooled
from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings import DatabasePooler, Settings

log = structlog.get_logger("migrations")

CONNECT_SECONDS = 10

READ_COMMITTED = "SET default_transaction_isolation TO 'read committed'"
"""A stricter default of the database would make a migration fail beside the writes of the service."""

_POOLER_REFUSED = (
    "Migrations need a direct connection to PostgreSQL, and {url} leads to a connection pooler, which does not keep "
    "their lock and timeouts on one server connection: set MIGRATION_DATABASE_URL to the address of PostgreSQL itself."
)


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
        StartupError: PostgreSQL cannot be reached, refuses the connection, or is behind a pooler.
    """
    if settings.migration_database_url is None and settings.database_pooler is not DatabasePooler.NONE:
        raise StartupError(
            _POOLER_REFUSED.format(url=f"with DATABASE_POOLER={settings.database_pooler.value} DATABASE_URL")
        )

    async def open_with_timeouts() -> asyncpg.Connection:
        connection = await open_connection(settings.read_migration_database_url())
        connection.add_log_listener(_log_warning)
        await connection.execute(
            timeouts(
                lock_seconds=settings.migration_lock_seconds, statement_seconds=settings.migration_statement_seconds
            )
        )
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=open_with_timeouts, hide_parameters=True
    )
    async with engine.connect() as connection:
        yield connection


async def open_connection(url: DatabaseUrl) -> asyncpg.Connection:
    """A direct connection to PostgreSQL.

    Raises:
        StartupError: PostgreSQL cannot be reached, refuses the connection, or is behind a pooler.
            The message never contains the password.
    """
    try:
        connection: asyncpg.Connection = await connecting.connect(
            url,
            host_seconds=CONNECT_SECONDS,
            statement_cache_size=0,
            server_settings={"application_name": f"{NAME} migrations"},
        )
    except asyncpg.PostgresError as error:
        raise StartupError(f"PostgreSQL refused the migration's connection: {error.args[0]}.") from None
    except TimeoutError:
        raise StartupError(
            f"PostgreSQL did not answer the migration's connection within {CONNECT_SECONDS} s."
        ) from None
    except OSError as error:
        raise StartupError(
            f"PostgreSQL cannot be reached: {error}. Check that it runs, and the host and port in "
            "MIGRATION_DATABASE_URL or DATABASE_URL."
        ) from None
    if await is_pooled(connection):
        await connection.close()
        raise StartupError(_POOLER_REFUSED.format(url="this URL"))
    await connection.execute(READ_COMMITTED)
    return connection


def _log_warning(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
    """Log a warning that a revision raises in PostgreSQL. Notices, as of IF EXISTS, are not logged."""
    if message.severity_en == "WARNING":
        log.warning("postgresql_warning", message=message.message)
