"""The script that `alembic` runs: it applies the revisions with the service's settings, beside the running service."""

import asyncio
import logging
import sys

import asyncpg
from alembic import context
from sqlalchemy.exc import DBAPIError

from app import logs
from app.errors import StartupError
from app.settings import Settings
from migrations import advisory_lock, session
from migrations.command import Command
from migrations.monitor import monitoring
from migrations.retries import describe_failure, run_with_retries


async def _run(command: Command, settings: Settings) -> None:
    async with session.connect(settings) as connection:
        try:
            if not await connection.run_sync(command.has_steps):
                if "destination_rev" not in context.get_context().opts:
                    await connection.run_sync(command.read)
                return
        except DBAPIError as error:
            raise StartupError(describe_failure(error, command.step_name(), settings)) from None
        except OSError as error:
            raise StartupError(f"The connection to PostgreSQL broke: {error}. Run the command again.") from None
        raw = await connection.get_raw_connection()
        driver: asyncpg.Connection = raw.driver_connection  # type: ignore[assignment]
        async with monitoring(
            settings.read_migration_database_url(),
            driver.get_server_pid(),
            lock_seconds=settings.migration_lock_seconds,
        ) as monitor:
            await advisory_lock.take_lock(connection, monitor, command.budget)
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
    # Standard output is for the command's own output, such as SQL.
    logs.configure(_settings.log_level, _settings.log_format, descriptor=2)
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)  # revision_started and revision_finished say more
    if context.is_offline_mode():
        Command(_settings).write_sql()
    else:
        asyncio.run(_run(Command(_settings), _settings))
except StartupError as error:
    logs.flush()
    sys.exit(f"Error: {error}")
