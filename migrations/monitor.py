"""A second connection that shows which processes block the migration, and how far an index build is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
import structlog

from app.database_url import DatabaseUrl
from app.logs.redaction import redact_text
from migrations.session import open_connection

log = structlog.get_logger("migrations")

MAX_POLL_SECONDS = 0.25
POLLS_PER_LOCK_TIMEOUT = 4
"""The blocking process is seen only while the migration waits for its lock."""

FIRST_PROGRESS_SECONDS = 2.0
"""An index build is logged for the first time after so long. Each next line comes after twice the time before it."""

MAX_PROGRESS_SECONDS = 30.0

_QUERY_SECONDS = 5.0
_QUERY_CHARACTERS = 120

_NO_LONGER_CONNECTED = "a process that is no longer connected"

_BLOCKING_PROCESSES = """
SELECT pid, usename, application_name, state, query,
    extract(epoch FROM clock_timestamp() - coalesce(xact_start, query_start, backend_start))::float AS age_seconds
FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids($1)) ORDER BY age_seconds DESC LIMIT 3
"""

_LOCK_HOLDER = """
SELECT pid, usename, application_name, state, query,
    extract(epoch FROM clock_timestamp() - coalesce(xact_start, query_start, backend_start))::float AS age_seconds
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) + objid::bigint = $1 AND objsubid = 1 AND granted
"""

_INDEX_PROGRESS = """
SELECT index_relid::regclass::text AS index, relid::regclass::text AS table, phase,
    CASE WHEN tuples_total > 0 THEN tuples_done::float / tuples_total
        WHEN blocks_total > 0 THEN blocks_done::float / blocks_total
        WHEN lockers_total > 0 THEN lockers_done::float / lockers_total END AS done
FROM pg_stat_progress_create_index WHERE pid = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingProcess:
    """A server process that holds a lock which the migration waits for."""

    pid: int
    usename: str | None
    application_name: str | None
    state: str | None
    query: str | None
    age_seconds: float | None
    """The age of its transaction."""

    def __str__(self) -> str:
        query = redact_text(" ".join((self.query or "unknown").split()))
        shortened = f"{query[:_QUERY_CHARACTERS]}…" if len(query) > _QUERY_CHARACTERS else query
        return (
            f"process {self.pid} of user {self.usename or 'unknown'} ({self.application_name or 'unnamed'}), "
            f"{self.state or 'state unknown'}, {self.age_seconds or 0:.0f} s old, query: {shortened}"
        )


class Monitor:
    """Reads what the migration's process waits for, several times a second."""

    def __init__(self, connection: asyncpg.Connection, pid: int, *, lock_seconds: float) -> None:
        self._connection = connection
        self._pid = pid
        self._poll_seconds = min(MAX_POLL_SECONDS, lock_seconds / POLLS_PER_LOCK_TIMEOUT)
        self._query_lock = asyncio.Lock()
        self._blockers: list[BlockingProcess] = []
        self._progress_logged_at = time.monotonic()
        self._progress_interval = FIRST_PROGRESS_SECONDS

    def describe_blockers(self) -> str:
        """The processes that blocked the migration when it last waited."""
        return "; ".join(map(str, self._blockers)) or _NO_LONGER_CONNECTED

    async def describe_lock_holder(self, key: int) -> str:
        """The process that holds this advisory lock."""
        holders = await self._fetch(_LOCK_HOLDER, key)
        return "; ".join(str(BlockingProcess(**holder)) for holder in holders) or _NO_LONGER_CONNECTED

    async def poll(self) -> None:
        """Poll until cancelled. If this connection breaks, polling ends and the migration goes on."""
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            while True:
                if blockers := await self._fetch(_BLOCKING_PROCESSES, self._pid):
                    self._blockers = [BlockingProcess(**blocker) for blocker in blockers]
                await self._log_index_progress()
                await asyncio.sleep(self._poll_seconds)

    async def _log_index_progress(self) -> None:
        builds = await self._fetch(_INDEX_PROGRESS, self._pid)
        if not builds:
            self._progress_logged_at = time.monotonic()
            self._progress_interval = FIRST_PROGRESS_SECONDS
        elif time.monotonic() - self._progress_logged_at >= self._progress_interval:
            self._progress_logged_at = time.monotonic()
            self._progress_interval = min(2 * self._progress_interval, MAX_PROGRESS_SECONDS)
            build = builds[0]
            # PostgreSQL reports "-" until the index is in its catalog.
            index = build["index"] if build["index"] != "-" else f"on {build['table']}"
            percent = None if build["done"] is None else round(100 * build["done"], 1)
            log.info("index_growing", index=index, phase=build["phase"], phase_percent=percent)

    async def _fetch(self, query: str, argument: int) -> list[asyncpg.Record]:
        async with self._query_lock:
            return await self._connection.fetch(query, argument, timeout=_QUERY_SECONDS)


@asynccontextmanager
async def monitoring(url: DatabaseUrl, pid: int, *, lock_seconds: float) -> AsyncIterator[Monitor]:
    """Monitor the connection with this process id and this lock timeout while the block runs."""
    connection = await open_connection(url)
    monitor = Monitor(connection, pid, lock_seconds=lock_seconds)
    task = asyncio.create_task(monitor.poll())
    try:
        yield monitor
    finally:
        task.cancel()
        await asyncio.wait([task])
        connection.terminate()
