"""Keeps a migration from hurting the service that runs meanwhile: one migrator at a time, and short waits for locks."""

import asyncio
import random
import time
import zlib
from collections.abc import Callable

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app import NAME
from app.errors import StartupError
from app.logs.redaction import redact_text
from app.settings import Settings
from migrations.blockers import Watch
from migrations.session import limits

log = structlog.get_logger("migrations")

LOCK_KEY = zlib.crc32(f"{NAME} migrations".encode())
"""The advisory lock that a migrator holds, in the database that it migrates."""

POLL_SECONDS = 0.5

TAKE_LOCK = f"""
DO $$
BEGIN
    IF NOT pg_try_advisory_lock({LOCK_KEY}) THEN
        RAISE EXCEPTION 'Another migration is still at work.';
    END IF;
END
$$;
"""
"""For a script: takes the lock for its session, or fails."""

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"
_CANCELED = "57014"


class Patience:
    """How long a run may still wait for locks. What gets done meanwhile does not count."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._since = time.monotonic()

    def begin(self) -> None:
        """From here on time is lost, unless what begins now succeeds."""
        self._since = time.monotonic()

    def end_in_vain(self) -> None:
        """The time since the beginning was lost."""
        self.left -= time.monotonic() - self._since
        self.begin()


async def take_lock(connection: AsyncConnection, watch: Watch, patience: Patience) -> None:
    """Wait until no other migrator works on this database. The lock is kept until the connection ends.

    By polling: one that waits inside PostgreSQL and CREATE INDEX CONCURRENTLY would wait for each other.

    Raises:
        StartupError: Another one is still at work when patience ends.
    """
    patience.begin()
    waited = False
    while not await _try_lock(connection):
        if patience.left <= 0:
            holder = await watch.lock_holder(LOCK_KEY)
            raise StartupError(f"Another migration is still at work: {holder}. Run this one again when it has ended.")
        if not waited:
            log.info("migration_waiting", held_by=str(await watch.lock_holder(LOCK_KEY)))
            waited = True
        await asyncio.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  # nosec B311
        patience.end_in_vain()


async def _try_lock(connection: AsyncConnection) -> bool:
    taken = await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY})
    # Alembic would take a transaction that is open already for its caller's, and never commit it.
    await connection.commit()
    return bool(taken)


async def run(
    connection: AsyncConnection,
    work: Callable[[Connection], None],
    *,
    doing: Callable[[], str],
    watch: Watch,
    patience: Patience,
    settings: Settings,
) -> None:
    """Do the work, and begin anew where a lock was not to be had.

    Requests queue up behind a statement that waits for a strong lock. So it
    waits shortly, and lets them pass before it tries again.

    Args:
        work: Migrates from wherever the database is.
        doing: The revision at hand.

    Raises:
        StartupError: It failed, or the lock was not to be had while patience lasted.
    """
    while True:
        patience.begin()
        try:
            return await connection.run_sync(work)
        except DBAPIError as error:
            if _sqlstate(error) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
                raise StartupError(_failure(error, doing(), settings)) from None
        except OSError as error:
            raise StartupError(f"{doing()} was cut off and rolled back: {error}. Run it again.") from None
        await _begin_anew(connection, settings)
        patience.end_in_vain()
        if patience.left <= 0:
            raise StartupError(
                f"{doing()} did not get its lock within {settings.migration_wait_seconds:g} s and was given up. "
                f"In its way: {watch.describe_blockers()}."
            )
        pause = settings.migration_lock_seconds * random.uniform(0.5, 1.5)  # noqa: S311  # nosec B311
        log.warning(
            "migration_blocked",
            doing=doing(),
            blocked_by=watch.describe_blockers(),
            again_in_seconds=round(pause, 1),
            patience_seconds=round(patience.left, 1),
        )
        patience.begin()
        await asyncio.sleep(pause)
        patience.end_in_vain()


async def _begin_anew(connection: AsyncConnection, settings: Settings) -> None:
    """Undo what was begun. The limits may have been lifted for it, so they are set again."""
    await connection.rollback()
    await connection.execute(
        text(
            limits(lock_seconds=settings.migration_lock_seconds, statement_seconds=settings.migration_statement_seconds)
        )
    )
    await connection.commit()


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _failure(error: DBAPIError, doing: str, settings: Settings) -> str:
    """One sentence on a statement that failed, and the statement."""
    if error.connection_invalidated or _sqlstate(error) is None:
        return f"{doing} was cut off and rolled back: the connection was lost. Run it again."
    statement = redact_text(" ".join((error.statement or "").split()))
    if _sqlstate(error) == _CANCELED:
        reason = (
            f"a statement was cancelled, most likely past its {settings.migration_statement_seconds:g} s "
            "(MIGRATION_STATEMENT_SECONDS)"
        )
    else:
        # The driver's own words, without the row that PostgreSQL repeats below them.
        cause = error.orig and error.orig.__cause__
        reason = redact_text(str(cause.args[0] if cause and cause.args else error.orig))
    return f"{doing} failed and was rolled back: {reason}. The statement: {statement[:300]}"
