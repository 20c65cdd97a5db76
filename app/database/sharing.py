"""Keeps the size of a worker's pool at the leases that the worker holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from app.connection_leases import Leases
from app.database.pool import Pool

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 0.1
"""How often a worker looks whether its share has changed. A new worker has its first connection two or three of these
intervals after it has been started, which is less than it needs to import the application."""


@asynccontextmanager
async def sharing(pool: Pool, leases: Leases) -> AsyncIterator[None]:
    """Adjust the pool while the block runs, and then give the leases back. The pool is closed inside of the block."""
    pool.resize(leases.adjust(pool.sessions))
    task = asyncio.create_task(_adjust(pool, leases))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not pool.sessions:
            # Otherwise the leases rest from the end of the process on, until the server has ended its sessions.
            leases.give_back()


async def _adjust(pool: Pool, leases: Leases) -> None:
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        try:
            pool.resize(leases.adjust(pool.sessions))
        except OSError:
            log.exception("connection_leases_failed")
