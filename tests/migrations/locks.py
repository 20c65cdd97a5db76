"""Transactions that stand in a migration's way."""

import asyncio

import asyncpg

_MIGRATOR = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name = 'items-api migrations' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
)
"""


async def blocking(connection: asyncpg.Connection, *, seconds: float = 30) -> None:
    """Wait until a migrator waits for this connection's transaction."""
    async with asyncio.timeout(seconds):
        # The statistics of others are read once a transaction, unless they are let go.
        while not await connection.fetchval(_MIGRATOR):
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.02)


def block(url: str, seconds: float) -> None:
    """Read the items, as a report or a backup does, and end the transaction so long after a migrator came to wait."""

    async def read_and_wait() -> None:
        connection = await asyncpg.connect(url, server_settings={"idle_in_transaction_session_timeout": "0"})
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM items LIMIT 1")
                await blocking(connection)
                await asyncio.sleep(seconds)
        finally:
            await connection.close()

    asyncio.run(read_and_wait())
