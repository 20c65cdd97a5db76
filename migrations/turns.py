"""Waits until this migration may run: until it has a connection, and no other migration runs."""

import asyncio
import random

import structlog

from app.errors import StartupError
from app.settings import Settings
from migrations.blockers import UNKNOWN, BlockingProcess
from migrations.lock_wait_budget import LockWaitBudget
from migrations.session import ConnectionsExhaustedError

log = structlog.get_logger("migrations")

POLL_SECONDS = 0.5


class Turn:
    """The waits of one migration for its turn.

    A migration that waits keeps no connection. So many of them can wait, and the one that
    runs gets its second connection.
    """

    def __init__(self, budget: LockWaitBudget, settings: Settings) -> None:
        self._budget = budget
        self._seconds = settings.migration_wait_seconds
        self._awaited = ""

    async def wait_for_connection(self, error: ConnectionsExhaustedError) -> None:
        """Wait before the next attempt to connect.

        Raises:
            StartupError: The budget is spent.
        """
        if self._budget.is_spent:
            raise StartupError(
                f"{error} It was tried for {self._seconds:g} s (MIGRATION_WAIT_SECONDS). "
                "End other sessions, or raise the limit, such as by ALTER ROLE … CONNECTION LIMIT."
            )
        if self._begins("connection"):
            log.info("connection_awaited", cause=str(error))
        self._budget.subtract(await _pause())

    async def wait_for(self, holder: BlockingProcess | None) -> None:
        """Wait before the next attempt to take the advisory lock, which another migration holds.

        Time in which that one runs a statement is not subtracted: it may build an index for hours.

        Raises:
            StartupError: The budget is spent.
        """
        described = str(holder or UNKNOWN)
        if self._budget.is_spent:
            raise StartupError(
                f"Another migration is running: {described}. Run this command again when it has finished."
            )
        if self._begins("lock"):
            log.info("migration_waiting", held_by=described)
        pause = await _pause()
        if holder is None or holder.state != "active":
            self._budget.subtract(pause)

    def _begins(self, awaited: str) -> bool:
        """Whether something else was awaited before."""
        before, self._awaited = self._awaited, awaited
        return before != awaited


async def _pause() -> float:
    seconds = POLL_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311  # nosec B311
    await asyncio.sleep(seconds)
    return seconds
