"""A second connection that shows what the migration waits for, and how far an index build is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog

from app.database.failures import DRIVER_ERRORS
from app.database_url import DatabaseUrl
from app.errors import StartupError
from migrations.blockers import QUERY_SECONDS, UNKNOWN, BlockingProcess, PreparedTransaction, read_blockers
from migrations.session import open_connection

log = structlog.get_logger("migrations")

MAX_POLL_SECONDS = 0.25
POLLS_PER_LOCK_TIMEOUT = 4
"""The blocking process is seen only while the migration waits for its lock."""

SLOW_POLL_SECONDS = 1.0
"""How often the server is asked during an index build, which can take hours."""

FIRST_LINE_SECONDS = 2.0
"""An index build, or its wait, is logged for the first time after so long. Each next line comes after twice the
time before it."""

MAX_LINE_SECONDS = 30.0

CONNECT_SECONDS = 2.0
"""How long a migration waits for its monitor. After that it starts without one."""

RECONNECT_SECONDS = 1.0

_INDEX_PROGRESS = """
SELECT index_relid::regclass::text AS index, relid::regclass::text AS table, phase,
    CASE WHEN tuples_total > 0 THEN tuples_done::float / tuples_total
        WHEN blocks_total > 0 THEN blocks_done::float / blocks_total END AS done
FROM pg_stat_progress_create_index WHERE pid = $1
"""

_WAITING = "waiting"
"""How the phases of a build begin in which it waits for transactions."""


class Monitor:
    """Reads what the migration's process waits for, several times a second."""

    def __init__(self, url: DatabaseUrl, pid: int, *, lock_seconds: float) -> None:
        self._url = url
        self._pid = pid
        self._lock_seconds = lock_seconds
        self._poll_seconds = min(MAX_POLL_SECONDS, lock_seconds / POLLS_PER_LOCK_TIMEOUT)
        self._connected = asyncio.Event()
        self._blockers: list[BlockingProcess | PreparedTransaction] = []
        self._schedule = LineSchedule()
        self._is_reported = False

    def describe_blockers(self) -> str:
        """What blocked the migration when it last waited."""
        return "; ".join(map(str, self._blockers)) or UNKNOWN

    async def wait_until_connected(self) -> None:
        """Wait until the monitor has its connection, for CONNECT_SECONDS at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected.wait()

    async def run(self) -> None:
        """Connect and poll until cancelled. Without a connection the migration goes on, and this tries again."""
        while True:
            try:
                connection = await open_connection(self._url)
            except StartupError as error:
                self._report(str(error))
            else:
                self._connected.set()
                try:
                    await self._poll(connection)
                except DRIVER_ERRORS as error:
                    self._report(f"The connection broke: {type(error).__name__}.")
                finally:
                    connection.terminate()
            await asyncio.sleep(RECONNECT_SECONDS)

    def _report(self, cause: str) -> None:
        if not self._is_reported:
            self._is_reported = True
            log.warning("migration_unmonitored", cause=cause)

    async def _poll(self, connection: asyncpg.Connection) -> None:
        while True:
            if blockers := await read_blockers(connection, self._pid):
                self._blockers = blockers
            builds = await connection.fetch(_INDEX_PROGRESS, self._pid, timeout=QUERY_SECONDS)
            self._log_progress(dict(builds[0]) if builds else None, is_blocked=bool(blockers))
            is_long = bool(builds) or (blockers and self._schedule.elapsed_seconds > self._lock_seconds)
            await asyncio.sleep(SLOW_POLL_SECONDS if is_long else self._poll_seconds)

    def _log_progress(self, build: dict[str, Any] | None, *, is_blocked: bool) -> None:
        """Log how far a build is, or what it waits for. Only a concurrent statement outlasts the lock timeout."""
        if build and not build["phase"].startswith(_WAITING):
            if self._schedule.is_due("building"):
                percent = None if build["done"] is None else round(100 * build["done"], 1)
                log.info("index_growing", index=_name(build), phase=build["phase"], phase_percent=percent)
        elif not build and not is_blocked:
            self._schedule.is_due(None)
        elif self._schedule.is_due(_WAITING) and self._schedule.elapsed_seconds > self._lock_seconds and is_blocked:
            log.warning(
                "index_waiting",
                index=_name(build) if build else None,
                phase=build["phase"] if build else "waiting for a lock",
                waited_seconds=round(self._schedule.elapsed_seconds),
                blocked_by=self.describe_blockers(),
            )


class LineSchedule:
    """When the next line about an activity is due: after 2, 4, 8 and 16 seconds more, then every 30."""

    def __init__(self) -> None:
        self._activity: str | None = None
        self._started = self._last_line = time.monotonic()
        self._interval = FIRST_LINE_SECONDS

    @property
    def elapsed_seconds(self) -> float:
        """How long the activity has lasted."""
        return time.monotonic() - self._started

    def is_due(self, activity: str | None) -> bool:
        """Whether a line about this activity is due now. It starts when it is named for the first time."""
        now = time.monotonic()
        if activity != self._activity:
            self._activity = activity
            self._started = self._last_line = now
            self._interval = FIRST_LINE_SECONDS
        if activity is None or now - self._last_line < self._interval:
            return False
        self._last_line = now
        self._interval = min(2 * self._interval, MAX_LINE_SECONDS)
        return True


def _name(build: dict[str, Any]) -> str:
    # PostgreSQL reports "-" until the index is in its catalog.
    return str(build["index"]) if build["index"] != "-" else f"on {build['table']}"


@asynccontextmanager
async def monitoring(url: DatabaseUrl, pid: int, *, lock_seconds: float) -> AsyncIterator[Monitor]:
    """Monitor the connection with this process id and this lock timeout while the block runs.

    The block starts without a monitor where the server has no second connection for it.
    """
    monitor = Monitor(url, pid, lock_seconds=lock_seconds)
    task = asyncio.create_task(monitor.run())
    try:
        await monitor.wait_until_connected()
        yield monitor
    finally:
        task.cancel()
        await asyncio.wait([task])
