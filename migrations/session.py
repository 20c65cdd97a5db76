"""The migrator's connections: direct ones, with limits on what they may wait for and how long a statement runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app import NAME
from app.errors import StartupError
from app.settings import DatabasePooler, Settings

CONNECT_SECONDS = 10

_POOLER_REFUSED = (
    "Migrations need a connection of their own to PostgreSQL, and {how} leads to a pooler, which would spread "
    "their lock and their limits over several: set MIGRATION_DATABASE_URL to the address of PostgreSQL itself."
)


def limits(*, lock_seconds: float, statement_seconds: float) -> str:
    """The statement that limits a session. 0 is no limit, as in PostgreSQL."""
    return (
        f"SELECT set_config('lock_timeout', '{lock_seconds * 1000:.0f}ms', false), "
        f"set_config('statement_timeout', '{statement_seconds * 1000:.0f}ms', false)"
    )


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """The connection that migrates.

    Raises:
        StartupError: PostgreSQL is out of reach, refuses, or stands behind a pooler.
    """
    if settings.migration_database_url is None and settings.database_pooler is not DatabasePooler.NONE:
        raise StartupError(_POOLER_REFUSED.format(how="with DATABASE_POOLER=pgbouncer DATABASE_URL"))

    async def open_limited() -> asyncpg.Connection:
        connection = await open_connection(settings.migration_dsn)
        await connection.execute(
            limits(lock_seconds=settings.migration_lock_seconds, statement_seconds=settings.migration_statement_seconds)
        )
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=open_limited, hide_parameters=True
    )
    async with engine.connect() as connection:
        yield connection


async def open_connection(dsn: str) -> asyncpg.Connection:
    """A connection to PostgreSQL itself.

    Raises:
        StartupError: There is none to be had. The message does not repeat the password.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            statement_cache_size=0,
            server_settings={"application_name": f"{NAME} migrations"},
        )
    except asyncpg.PostgresError as error:
        raise StartupError(f"PostgreSQL refuses the migrator: {error.args[0]}.") from None
    except TimeoutError:
        raise StartupError(f"PostgreSQL did not answer the migrator within {CONNECT_SECONDS} s.") from None
    except OSError as error:
        raise StartupError(f"PostgreSQL is out of the migrator's reach: {error}.") from None
    except (ValueError, asyncpg.InterfaceError):
        # What the driver says of a malformed URL may quote a part of the password.
        raise StartupError(
            "The database's URL cannot be read: write it as postgresql://user:password@host:5432/name, "
            "with %40 for @, %2F for / and %25 for % in the password."
        ) from None
    if await _is_pooled(connection):
        await connection.close()
        raise StartupError(_POOLER_REFUSED.format(how="this URL"))
    return connection


async def _is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether a pooler answers: it makes up the process id that a client may cancel by, as it cannot know the real one.

    Whether it pools by session or by transaction cannot be told from here.
    """
    async with connection.transaction():
        process_id: int = await connection.fetchval("SELECT pg_backend_pid()")
    return process_id != connection.get_server_pid()
