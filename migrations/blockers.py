"""What a second connection sees while the first one migrates: who is in its way, and how far an index has grown."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
import structlog

from app.logs.redaction import redact_text
from migrations.session import open_connection

log = structlog.get_logger("migrations")

LOOK_SECONDS = 0.25
PROGRESS_SECONDS = 2.0
"""How long an index grows before it is told; each line comes after twice the time of the one before."""

LONGEST_PROGRESS_SECONDS = 30.0

_QUERY_CHARACTERS = 120

_BLOCKERS = """
SELECT pid, usename, application_name, state, query,
    extract(epoch FROM clock_timestamp() - coalesce(xact_start, query_start, backend_start))::float AS age_seconds
FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids($1)) ORDER BY age_seconds DESC LIMIT 3
"""

_HOLDER = """
SELECT pid, usename, application_name, state, query,
    extract(epoch FROM clock_timestamp() - coalesce(xact_start, query_start, backend_start))::float AS age_seconds
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) + objid::bigint = $1 AND objsubid = 1 AND granted
"""

_PROGRESS = """
SELECT index_relid::regclass::text AS index, relid::regclass::text AS table, phase,
    CASE WHEN tuples_total > 0 THEN tuples_done::float / tuples_total
        WHEN blocks_total > 0 THEN blocks_done::float / blocks_total
        WHEN lockers_total > 0 THEN lockers_done::float / lockers_total END AS done
FROM pg_stat_progress_create_index WHERE pid = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A process that holds what the migration waits for."""

    pid: int
    usename: str | None
    application_name: str | None
    state: str | None
    query: str | None
    age_seconds: float | None
    """Since its transaction began."""

    def __str__(self) -> str:
        query = redact_text(" ".join((self.query or "unknown").split()))
        shortened = f"{query[:_QUERY_CHARACTERS]}…" if len(query) > _QUERY_CHARACTERS else query
        return (
            f"process {self.pid} of user {self.usename or 'unknown'} ({self.application_name or 'unnamed'}), "
            f"{self.state or 'in an unknown state'}, {self.age_seconds or 0:.0f} s old, query: {shortened}"
        )


class Watch:
    """Looks at the migrating connection several times a second."""

    def __init__(self, connection: asyncpg.Connection, pid: int) -> None:
        self._connection = connection
        self._pid = pid
        self._one_at_a_time = asyncio.Lock()
        self._blockers: list[Blocker] = []
        self._told_at = time.monotonic()
        self._silent_seconds = PROGRESS_SECONDS

    def describe_blockers(self) -> str:
        """Whom the migration waited for when it last waited."""
        return "; ".join(map(str, self._blockers)) or "a process that has gone meanwhile"

    async def lock_holder(self, key: int) -> str:
        """Who holds the advisory lock."""
        holders = await self._fetch(_HOLDER, key)
        return "; ".join(str(Blocker(**holder)) for holder in holders) or "a process that has gone meanwhile"

    async def look(self) -> None:
        """Look until cancelled. A connection that is lost ends it: the migration goes on unseen."""
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            while True:
                if blockers := await self._fetch(_BLOCKERS, self._pid):
                    self._blockers = [Blocker(**blocker) for blocker in blockers]
                await self._tell_progress()
                await asyncio.sleep(LOOK_SECONDS)

    async def _tell_progress(self) -> None:
        builds = await self._fetch(_PROGRESS, self._pid)
        if not builds:
            self._told_at = time.monotonic()
            self._silent_seconds = PROGRESS_SECONDS
        elif time.monotonic() - self._told_at >= self._silent_seconds:
            self._told_at = time.monotonic()
            self._silent_seconds = min(2 * self._silent_seconds, LONGEST_PROGRESS_SECONDS)
            build = builds[0]
            # It has no name before PostgreSQL has made it.
            index = build["index"] if build["index"] != "-" else f"on {build['table']}"
            percent = None if build["done"] is None else round(100 * build["done"], 1)
            log.info("index_growing", index=index, phase=build["phase"], phase_percent=percent)

    async def _fetch(self, query: str, argument: int) -> list[asyncpg.Record]:
        async with self._one_at_a_time:
            return await self._connection.fetch(query, argument, timeout=5)


@asynccontextmanager
async def watching(dsn: str, pid: int) -> AsyncIterator[Watch]:
    """Watch the connection with this process id while the block runs."""
    connection = await open_connection(dsn)
    watch = Watch(connection, pid)
    task = asyncio.create_task(watch.look())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
        connection.terminate()
