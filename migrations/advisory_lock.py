"""The advisory lock that lets one migration at a time change a database."""

import asyncio
import random
import zlib

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import NAME
from app.errors import StartupError
from migrations.lock_wait_budget import LockWaitBudget
from migrations.monitor import Monitor

log = structlog.get_logger("migrations")

LOCK_KEY = zlib.crc32(f"{NAME} migrations".encode())
"""The key of the advisory lock. Each database has its own lock."""

POLL_SECONDS = 0.5

LOCK_OR_FAIL = f"""
DO $$
BEGIN
    IF NOT pg_try_advisory_lock({LOCK_KEY}) THEN
        RAISE EXCEPTION 'Another migration is running.';
    END IF;
END
$$;
"""
"""For an SQL script: takes the lock for the session, or fails."""


async def take_lock(connection: AsyncConnection, monitor: Monitor, budget: LockWaitBudget) -> None:
    """Wait until no other migration holds the lock, and take it. It is held until the connection closes.

    The lock is polled. A session that waits inside PostgreSQL would deadlock with CREATE INDEX CONCURRENTLY.

    Raises:
        StartupError: Another migration still holds the lock when the budget is spent.
    """
    budget.start()
    waited = False
    while not await _try_lock(connection):
        if budget.is_spent:
            holder = await monitor.describe_lock_holder(LOCK_KEY)
            raise StartupError(f"Another migration is running: {holder}. Run this command again when it has finished.")
        if not waited:
            log.info("migration_waiting", held_by=await monitor.describe_lock_holder(LOCK_KEY))
            waited = True
        await asyncio.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  # nosec B311
        budget.subtract_elapsed()


async def _try_lock(connection: AsyncConnection) -> bool:
    taken = await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY})
    # Alembic treats an open transaction as its caller's, and never commits it.
    await connection.commit()
    return bool(taken)
