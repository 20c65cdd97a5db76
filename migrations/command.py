"""The command that `alembic` was called with: what it runs, and what is checked around it."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import structlog
from alembic import context
from alembic.runtime.migration import MigrationContext, RevisionStep
from sqlalchemy import Connection, text

from app.health.schema_state import VERSION_TABLE, Revisions, SchemaState
from app.models import Base
from app.settings import Settings
from migrations import advisory_lock, autogenerate, comparison, first_migration, session, version_table
from migrations.lock_wait_budget import LockWaitBudget
from migrations.privileges import require_readable_version
from migrations.tables import require_tables

log = structlog.get_logger("migrations")

_HAS_TRIGRAMS = text(
    "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm' AND has_schema_privilege(extnamespace, 'USAGE'))"
)
_HEAD = ("head", "heads")


class Command:
    """The command that `alembic` was called with."""

    def __init__(self, settings: Settings) -> None:
        self.budget = LockWaitBudget(settings.migration_wait_seconds)
        self._options: dict[str, Any] = {
            "target_metadata": Base.metadata,
            "version_table": VERSION_TABLE,
            "transaction_per_migration": True,
            "include_name": comparison.include_name,
            "on_version_apply": _write_old_table,
            "process_revision_directives": autogenerate.process_revision_directives,
            # These are for migrations.indexes.
            "lock_seconds": session.lock_wait_seconds(settings),
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
        for line in (
            "-- Run this with psql --set ON_ERROR_STOP=1, which stops at the first failure.",
            advisory_lock.LOCK_OR_FAIL,
            f"{timeouts};",
            f"{session.READ_COMMITTED};",
            *([version_table.TAKE_OVER] if version_table.APPLIES else []),
        ):
            migration.impl.static_output(line)
        if not migration.get_current_heads():
            migration.impl.static_output(first_migration.CHECK_DATABASE)
        with context.begin_transaction():
            context.run_migrations()

    def write_revision(self) -> None:
        """Prepare a new revision without a database: see `autogenerate.writes_without_database`."""
        self._configure(dialect_name="postgresql")
        migration = context.get_context()
        migration.opts["fn"]((), migration)

    def has_steps(self, connection: Connection) -> bool:
        """Whether the command changes the database's revision, and there are steps to run.

        Raises:
            StartupError: There are none, although tables are missing. Or the role may not read the version table.
        """
        require_readable_version(connection)
        self._configure(connection=connection)
        migration = context.get_context()
        if "destination_rev" not in migration.opts:
            return False
        self._plan = migration.opts["fn"]
        heads = migration.get_current_heads()
        has_steps = version_table.must_take_over(connection) or not self._is_finished(connection, heads, migration)
        connection.rollback()
        return has_steps

    def read(self, connection: Connection) -> None:
        """Run a command that does not change the database."""
        if version_table.must_take_over(connection):
            log.warning("version_table_old", table=version_table.OLD_TABLE, needed=VERSION_TABLE)
        self._configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()

    def migrate(self, connection: Connection) -> None:
        """Run all steps, each in a transaction of its own.

        Raises:
            StartupError: The database is not one that the service can use.
        """
        self._take_over(connection)
        self._configure(connection=connection, fn=self._steps)
        migration = context.get_context()
        heads = migration.get_current_heads()
        if self._is_finished(connection, heads, migration):
            return
        if not heads and any(isinstance(step, RevisionStep) for step in self._plan(heads, migration)):
            first_migration.check_database(connection)
        connection.rollback()
        with context.begin_transaction():
            context.run_migrations()
        self._require_tables(connection, migration.get_current_heads(), migration)
        connection.rollback()

    def step_name(self) -> str:
        """The step that is running, such as `upgrade items_0001 -> items_0002`, or `upgrade base -> items_0001`."""
        if self._step is None:
            return "The command"
        origin, target = self._step.from_revisions_no_deps, self._step.to_revisions_no_deps
        return f"{self._step.name} {', '.join(origin) or 'base'} -> {', '.join(target) or 'base'}"

    def _is_finished(self, connection: Connection, heads: tuple[str, ...], migration: MigrationContext) -> bool:
        """Whether there is nothing to run, because the database has the revision or a newer one."""
        revisions = Revisions(Path(migration.opts["script"].dir))
        if migration.opts["destination_rev"] in _HEAD and heads and revisions.compare(heads) is SchemaState.AHEAD:
            # A release was rolled back. The older one must start, and the database stays as it is.
            self._require_tables(connection, heads, migration)
            log.warning("database_ahead", revision=", ".join(heads))
            return True
        if list(self._plan(heads, migration)) or migration.purge:
            return False
        self._require_tables(connection, heads, migration)
        log.info("database_current", revision=", ".join(heads) or None)
        return True

    def _require_tables(self, connection: Connection, heads: tuple[str, ...], migration: MigrationContext) -> None:
        if migration.opts["destination_rev"] in _HEAD:
            require_tables(connection, ", ".join(heads))

    def _take_over(self, connection: Connection) -> None:
        if version_table.must_take_over(connection):
            connection.exec_driver_sql(version_table.TAKE_OVER)
            connection.commit()
            log.info("version_table_taken_over", table=version_table.OLD_TABLE, by=VERSION_TABLE)

    def _steps(self, heads: tuple[str, ...], migration: MigrationContext) -> Iterator[RevisionStep]:
        for step in self._plan(heads, migration):
            self._step = step
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
            include_object=comparison.include_object(has_trigrams=has_trigrams),
            **self._options,
            **options,
        )


def _write_old_table(ctx: MigrationContext, heads: Iterable[str], **_: Any) -> None:
    """Write the new revision to the old version table, too, in the transaction of the step."""
    statement = version_table.old_table_follows(heads)
    if ctx.as_sql:
        ctx.impl.static_output(statement)
    else:
        cast(Connection, ctx.connection).exec_driver_sql(statement)
