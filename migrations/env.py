"""The script that `alembic` runs: it applies the revisions with the service's settings, beside the running service."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from alembic import context
from alembic.runtime.migration import MigrationContext, RevisionStep
from sqlalchemy import Connection, text

from app import logs
from app.errors import StartupError
from app.health.schema_state import Revisions, SchemaState
from app.models import Base
from app.settings import Settings
from migrations import advisory_lock, session
from migrations.lock_wait_budget import LockWaitBudget
from migrations.monitor import monitoring
from migrations.retries import run_with_retries

log = structlog.get_logger("migrations")

_HAS_TRIGRAMS = text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')")
_TRIGRAM_INDEX_SUFFIX = "_trgm"
"""The end of the name of each index that needs the extension pg_trgm."""


class Command:
    """The command that `alembic` was called with."""

    def __init__(self, settings: Settings) -> None:
        self.budget = LockWaitBudget(settings.migration_wait_seconds)
        self._options: dict[str, Any] = {
            "target_metadata": Base.metadata,
            "transaction_per_migration": True,
            # These are for migrations.indexes.
            "lock_wait_budget": self.budget,
            "lock_seconds": settings.migration_lock_seconds,
            "statement_seconds": settings.migration_statement_seconds,
        }
        self._plan: Callable[[tuple[str, ...], MigrationContext], Iterable[RevisionStep]]
        self._step: RevisionStep | None = None

    def write_sql(self) -> None:
        """Write the SQL of all steps to standard output, for psql."""
        self._configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
        migration = context.get_context()
        timeouts = session.timeouts(
            lock_seconds=self._options["lock_seconds"], statement_seconds=self._options["statement_seconds"]
        )
        migration.impl.static_output("-- Run this with psql --set ON_ERROR_STOP=1, which stops at the first failure.")
        migration.impl.static_output(advisory_lock.LOCK_OR_FAIL)
        migration.impl.static_output(f"{timeouts};")
        with context.begin_transaction():
            context.run_migrations()

    def has_steps(self, connection: Connection) -> bool:
        """Whether the command changes the database's revision, and there are steps to run."""
        self._configure(connection=connection)
        migration = context.get_context()
        if "destination_rev" not in migration.opts:
            return False
        self._plan = migration.opts["fn"]
        heads = migration.get_current_heads()
        connection.rollback()
        known = Revisions(Path(migration.opts["script"].dir))
        if migration.opts["destination_rev"] == "head" and heads and known.state(heads[0]) is SchemaState.AHEAD:
            # The release before is rolled out again. It must start, and the database stays as it is.
            log.warning("database_ahead", revision=heads[0])
            return False
        if not list(self._plan(heads, migration)) and not migration.purge:
            log.info("database_current", revision=", ".join(heads) or None)
            return False
        return True

    def read(self, connection: Connection) -> None:
        """Run a command that does not change the database."""
        self._configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()

    def migrate(self, connection: Connection) -> None:
        """Run all steps, each in a transaction of its own."""
        self._configure(connection=connection, fn=self._steps)
        with context.begin_transaction():
            context.run_migrations()

    def step_name(self) -> str:
        """The step that is running, such as `upgrade 0001 -> 0002`."""
        return str(self._step).partition(",")[0] if self._step else "The command"

    def _steps(self, heads: tuple[str, ...], migration: MigrationContext) -> Iterator[RevisionStep]:
        for step in self._plan(heads, migration):
            self._step = step
            self.budget.start()
            started = time.monotonic()
            log.info("revision_started", step=self.step_name())
            yield step
            log.info("revision_finished", step=self.step_name(), seconds=round(time.monotonic() - started, 3))

    def _configure(self, connection: Connection | None = None, **options: Any) -> None:
        has_trigrams = True
        if connection is not None:
            has_trigrams = bool(connection.scalar(_HAS_TRIGRAMS))
            # Alembic treats an open transaction as its caller's, and never commits it.
            connection.rollback()
        context.configure(
            connection=connection,
            include_object=lambda _object, name, *_: has_trigrams or not str(name).endswith(_TRIGRAM_INDEX_SUFFIX),
            **self._options,
            **options,
        )


async def _run(command: Command, settings: Settings) -> None:
    async with session.connect(settings) as connection:
        if not await connection.run_sync(command.has_steps):
            if "destination_rev" not in context.get_context().opts:
                await connection.run_sync(command.read)
            return
        raw = await connection.get_raw_connection()
        driver: asyncpg.Connection = raw.driver_connection  # type: ignore[assignment]
        async with monitoring(settings.read_migration_database_url(), driver.get_server_pid()) as monitor:
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
