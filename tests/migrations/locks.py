"""Transactions that block a migration."""

import asyncio

import asyncpg

from app import NAME

_BLOCKS_A_MIGRATION = f"""
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name = '{NAME} migrations' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
)
"""


async def wait_until_blocking(connection: asyncpg.Connection, *, seconds: float = 30) -> None:
    """Wait until a migration waits for a lock of this connection."""
    async with asyncio.timeout(seconds):
        # Inside a transaction pg_stat_activity does not change until its snapshot is cleared.
        while not await connection.fetchval(_BLOCKS_A_MIGRATION):
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.02)


def block(url: str, seconds: float) -> None:
    """Read the samples in a transaction, as a report does. End it so long after a migration began to wait."""
    settings = {"application_name": "report", "idle_in_transaction_session_timeout": "0"}

    async def read_and_wait() -> None:
        connection = await asyncpg.connect(url, server_settings=settings)
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM samples LIMIT 1")
                await wait_until_blocking(connection)
                await asyncio.sleep(seconds)
        finally:
            await connection.close()

    asyncio.run(read_and_wait())
