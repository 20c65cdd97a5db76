"""What `alembic` runs: the revisions, by the settings of the service, guarded against hurting it."""

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
from migrations import guard, session
from migrations.blockers import watching

log = structlog.get_logger("migrations")

_HAS_TRIGRAMS = text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')")
_OF_TRIGRAMS = "_trgm"
"""How the names of indexes end that only a server with pg_trgm can have."""


class Command:
    """What `alembic` was called for."""

    def __init__(self, settings: Settings) -> None:
        self.patience = guard.Patience(settings.migration_wait_seconds)
        self._options: dict[str, Any] = {
            "target_metadata": Base.metadata,
            "transaction_per_migration": True,
            # For migrations.indexes.
            "patience": self.patience,
            "lock_seconds": settings.migration_lock_seconds,
            "statement_seconds": settings.migration_statement_seconds,
        }
        self._plan: Callable[[tuple[str, ...], MigrationContext], Iterable[RevisionStep]]
        self._step: RevisionStep | None = None

    def write(self) -> None:
        """Write the SQL of all steps to standard output, for psql."""
        self._configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
        migration = context.get_context()
        limits = session.limits(
            lock_seconds=self._options["lock_seconds"], statement_seconds=self._options["statement_seconds"]
        )
        for line in ("-- Run it with psql --set ON_ERROR_STOP=1, which stops at the first failure.", guard.TAKE_LOCK):
            migration.impl.static_output(line)
        migration.impl.static_output(f"{limits};")
        with context.begin_transaction():
            context.run_migrations()

    def changes(self, connection: Connection) -> bool:
        """Whether it is one that changes the database's revision, and there is something to change."""
        self._configure(connection=connection)
        migration = context.get_context()
        if "destination_rev" not in migration.opts:
            return False
        self._plan = migration.opts["fn"]
        heads = migration.get_current_heads()
        connection.rollback()
        known = Revisions(Path(migration.opts["script"].dir))
        if migration.opts["destination_rev"] == "head" and heads and known.state(heads[0]) is SchemaState.AHEAD:
            # The release before is rolled out again: it must start, and the database stays as it is.
            log.warning("database_ahead", revision=heads[0])
            return False
        if not list(self._plan(heads, migration)) and not migration.purge:
            log.info("database_current", revision=", ".join(heads) or None)
            return False
        return True

    def read(self, connection: Connection) -> None:
        """Run a command that leaves the database as it is."""
        self._configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()

    def migrate(self, connection: Connection) -> None:
        """Run all steps, each in a transaction of its own."""
        self._configure(connection=connection, fn=self._steps)
        with context.begin_transaction():
            context.run_migrations()

    def doing(self) -> str:
        """The step at hand, as in `upgrade 0001 -> 0002`."""
        return str(self._step).partition(",")[0] if self._step else "The command"

    def _steps(self, heads: tuple[str, ...], migration: MigrationContext) -> Iterator[RevisionStep]:
        for step in self._plan(heads, migration):
            self._step = step
            self.patience.begin()
            started = time.monotonic()
            log.info("revision_started", doing=self.doing())
            yield step
            log.info("revision_finished", doing=self.doing(), seconds=round(time.monotonic() - started, 3))

    def _configure(self, connection: Connection | None = None, **options: Any) -> None:
        has_trigrams = True
        if connection is not None:
            has_trigrams = bool(connection.scalar(_HAS_TRIGRAMS))
            # Alembic would take a transaction that is open already for its caller's, and never commit it.
            connection.rollback()
        context.configure(
            connection=connection,
            include_object=lambda _object, name, *_: has_trigrams or not str(name).endswith(_OF_TRIGRAMS),
            **self._options,
            **options,
        )


async def _run(command: Command, settings: Settings) -> None:
    async with session.connect(settings) as connection:
        if not await connection.run_sync(command.changes):
            if "destination_rev" not in context.get_context().opts:
                await connection.run_sync(command.read)
            return
        raw = await connection.get_raw_connection()
        driver: asyncpg.Connection = raw.driver_connection  # type: ignore[assignment]
        async with watching(settings.migration_dsn, driver.get_server_pid()) as watch:
            await guard.take_lock(connection, watch, command.patience)
            await guard.run(
                connection,
                command.migrate,
                doing=command.doing,
                watch=watch,
                patience=command.patience,
                settings=settings,
            )


try:
    _settings = Settings.load()
    # Standard output is for what `alembic` is asked for, such as the SQL.
    logs.configure(_settings.log_level, _settings.log_format, descriptor=2)
    logging.getLogger("alembic.runtime").setLevel(logging.WARNING)  # ours say more
    if context.is_offline_mode():
        Command(_settings).write()
    else:
        asyncio.run(_run(Command(_settings), _settings))
except StartupError as error:
    logs.flush()
    sys.exit(f"Error: {error}")
