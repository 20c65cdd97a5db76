"""The advisory lock that lets one migration at a time change a database."""

import zlib

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import NAME
from migrations.blockers import COLUMNS, BlockingProcess

LOCK_KEY = zlib.crc32(f"{NAME} migrations".encode())
"""The key of the advisory lock. Each database has its own lock."""

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

_HOLDER = text(f"""
SELECT {COLUMNS}
FROM pg_locks JOIN pg_stat_activity AS blocking USING (pid)
WHERE locktype = 'advisory' AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) + objid::bigint = {LOCK_KEY} AND objsubid = 1 AND granted
""")  # noqa: S608  # nosec


async def try_lock(connection: AsyncConnection) -> bool:
    """Take the lock, if no other migration holds it. It is held until the connection closes.

    A session that waited for the lock inside PostgreSQL would deadlock with CREATE INDEX CONCURRENTLY.
    """
    taken = await connection.scalar(text(f"SELECT pg_try_advisory_lock({LOCK_KEY})"))
    # Alembic treats an open transaction as its caller's, and never commits it.
    await connection.commit()
    return bool(taken)


async def read_holder(connection: AsyncConnection) -> BlockingProcess | None:
    """The process that holds the lock. None if it has just released it."""
    row = (await connection.execute(_HOLDER)).mappings().first()
    return BlockingProcess(**row) if row else None
