"""Runs a migration with a short lock timeout, and retries it while another transaction holds a lock that it needs."""

import asyncio
import random
from collections.abc import Callable

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import StartupError
from app.logs.redaction import redact_text
from app.settings import Settings
from migrations.lock_wait_budget import LockWaitBudget
from migrations.monitor import Monitor
from migrations.session import lock_wait_seconds, timeouts

log = structlog.get_logger("migrations")

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"
_CANCELED = "57014"
_RAISED = "P0001"
_NO_PRIVILEGE = "42501"

_STATEMENT_CHARACTERS = 300

_BROKE = "{step} was rolled back: the connection broke. Run it again."

MAX_PAUSE_SECONDS = 5.0
"""How long the pause between two attempts becomes, on average. The first one is as long as the wait for the lock."""


async def run_with_retries(
    connection: AsyncConnection,
    migrate: Callable[[Connection], None],
    *,
    step_name: Callable[[], str],
    monitor: Monitor,
    budget: LockWaitBudget,
    settings: Settings,
) -> None:
    """Run the migration. Retry it after a lock timeout or a deadlock.

    Requests queue behind a statement that waits for a strong lock. So each wait is
    short, and the requests are served before the next attempt. The pauses grow, so that
    few requests meet an attempt while a lock is held for long.

    Args:
        migrate: Runs all steps from the database's current revision.
        step_name: Returns the step that is running.

    Raises:
        StartupError: The migration failed, or the budget was spent before it got its lock.
    """
    pause = lock_seconds = lock_wait_seconds(settings)
    blocked_step = ""
    while True:
        try:
            return await connection.run_sync(migrate)
        except DBAPIError as error:
            # SQLAlchemy would open another connection, which does not hold the advisory lock.
            if error.connection_invalidated or _sqlstate(error) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
                raise StartupError(describe_failure(error, step_name(), settings)) from None
        except PendingRollbackError:  # Alembic begins the next transaction on a connection that broke.
            raise StartupError(_BROKE.format(step=step_name())) from None
        except OSError as error:
            raise StartupError(
                f"{step_name()} was rolled back: the connection broke ({error}). Run it again."
            ) from None
        try:
            await _roll_back(connection, settings)
        except (DBAPIError, OSError):  # PostgreSQL has rolled it back.
            raise StartupError(_BROKE.format(step=step_name())) from None
        budget.subtract(lock_seconds)
        if budget.is_spent:
            raise StartupError(
                f"{step_name()} did not get its lock within {settings.migration_wait_seconds:g} s "
                f"(MIGRATION_WAIT_SECONDS) and was rolled back. Blocked by: {monitor.describe_blockers()}."
            )
        longest = max(lock_seconds, MAX_PAUSE_SECONDS)
        pause = min(2 * pause, longest) if step_name() == blocked_step else lock_seconds
        blocked_step = step_name()
        seconds = pause * random.uniform(0.5, 1.5)  # noqa: S311  # nosec B311
        log.warning(
            "migration_blocked",
            step=step_name(),
            blocked_by=monitor.describe_blockers(),
            retry_in_seconds=round(seconds, 1),
            remaining_wait_seconds=round(budget.remaining_seconds, 1),
        )
        await asyncio.sleep(seconds)
        budget.subtract(seconds)


async def _roll_back(connection: AsyncConnection, settings: Settings) -> None:
    """Roll back, and set the timeouts again: a concurrent index build changes them."""
    await connection.rollback()
    await connection.execute(
        text(timeouts(lock_seconds=lock_wait_seconds(settings), statement_seconds=settings.migration_statement_seconds))
    )
    await connection.commit()


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def describe_failure(error: DBAPIError, step_name: str, settings: Settings) -> str:
    """One sentence that says why a statement failed, and the statement."""
    if error.connection_invalidated or _sqlstate(error) is None:
        return _BROKE.format(step=step_name)
    statement = redact_text(" ".join((error.statement or "").split()))
    if _sqlstate(error) == _CANCELED:
        reason = (
            f"a statement was cancelled, most likely because it ran longer than "
            f"{settings.migration_statement_seconds:g} s (MIGRATION_STATEMENT_SECONDS)"
        )
    else:
        # Only the first line of the message. PostgreSQL repeats the row in the lines below it.
        cause = error.orig and error.orig.__cause__
        reason = redact_text(str(cause.args[0] if cause and cause.args else error.orig))
        if _sqlstate(error) == _RAISED:  # The message is the revision's own.
            return f"{step_name} was rolled back: {reason}"
    if _sqlstate(error) == _NO_PRIVILEGE:
        reason += " (connect as the role that owns the tables, with MIGRATION_DATABASE_URL)"
    return f"{step_name} failed and was rolled back: {reason}. The statement: {statement[:_STATEMENT_CHARACTERS]}"
