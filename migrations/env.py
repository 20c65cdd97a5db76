"""The script that `alembic` runs: it applies the revisions with the service's settings, beside the running service."""

import asyncio
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from alembic import context
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app import logs
from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings import Settings
from app.settings.misspelt import warn_of_misspelt_variables
from migrations import advisory_lock, autogenerate, session
from migrations.command import Command
from migrations.monitor import monitoring
from migrations.retries import describe_failure, run_with_retries
from migrations.session import ConnectionsExhaustedError
from migrations.turns import Turn


def _with_database(settings: Settings) -> Settings:
    """The settings. Without the address of a database it is that of the embedded PostgreSQL, if that runs."""
    is_set = settings.migration_database_url or settings.database_url
    if is_set or importlib.util.find_spec("app.embedded_postgres") is None:
        return settings
    from app import embedded_postgres  # noqa: PLC0415  # the image does not have it

    url = embedded_postgres.running_url(Path(__file__).resolve().parent.parent / ".postgres")
    return settings.model_copy(update={"database_url": DatabaseUrl.parse(url)})


async def _run(command: Command, settings: Settings) -> None:
    """Run the command when it is its turn."""
    turn = Turn(command.budget, settings)
    while True:
        try:
            async with session.connect(settings) as connection:
                with _described(command, settings):
                    if await _is_finished(command, connection):
                        break
                    has_lock = await advisory_lock.try_lock(connection)
                    holder = None if has_lock else await advisory_lock.read_holder(connection)
                if has_lock:
                    await _migrate(command, connection, settings)
                    break
        except ConnectionsExhaustedError as error:
            await turn.wait_for_connection(error)
        else:
            await turn.wait_for(holder)


async def _is_finished(command: Command, connection: AsyncConnection) -> bool:
    """Whether there is nothing to migrate. A command that only reads is run."""
    if await connection.run_sync(command.has_steps):
        return False
    if "destination_rev" not in context.get_context().opts:
        await connection.run_sync(command.read)
    return True


@contextmanager
def _described(command: Command, settings: Settings) -> Iterator[None]:
    """Turn a failure of the database into one sentence."""
    try:
        yield
    except DBAPIError as error:
        raise StartupError(describe_failure(error, command.step_name(), settings)) from None
    except OSError as error:
        raise StartupError(f"The connection to PostgreSQL broke: {error}. Run the command again.") from None


async def _migrate(command: Command, connection: AsyncConnection, settings: Settings) -> None:
    """Run the steps on the connection that holds the advisory lock."""
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection = raw.driver_connection  # type: ignore[assignment]
    async with monitoring(
        settings.read_migration_database_url(),
        driver.get_server_pid(),
        lock_seconds=session.lock_wait_seconds(settings),
    ) as monitor:
        await run_with_retries(
            connection,
            command.migrate,
            step_name=command.step_name,
            monitor=monitor,
            budget=command.budget,
            settings=settings,
        )


try:
    _settings = Settings.load()
    session.check_lock_seconds(_settings)
    # Standard output is for the command's own output, such as SQL.
    logs.configure(_settings.log_level, _settings.log_format, descriptor=2)
    warn_of_misspelt_variables()
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)  # revision_started and revision_finished say more
    if context.is_offline_mode():
        Command(_settings).write_sql()
    elif autogenerate.writes_without_database():
        Command(_settings).write_revision()
    else:
        _settings = _with_database(_settings)
        asyncio.run(_run(Command(_settings), _settings))
except StartupError as error:
    logs.flush()
    sys.exit(f"Error: {error}")
