"""Reads which processes and prepared transactions a server process waits for, and describes them."""

from dataclasses import dataclass

import asyncpg

from app.logs.redaction import redact_text

QUERY_SECONDS = 5.0
_QUERY_CHARACTERS = 120

UNKNOWN = "a process that is not known: it may have ended"

COLUMNS = """blocking.pid, blocking.usename, blocking.application_name, blocking.state, blocking.query,
    extract(epoch FROM clock_timestamp() - coalesce(
        blocking.xact_start, blocking.query_start, blocking.backend_start
    ))::float AS age_seconds, age(blocking.backend_xmin) AS snapshot_age"""
"""What is read of a row `blocking` of pg_stat_activity: the fields of `BlockingProcess`."""

# pg_blocking_pids locks the table of all locks, so it is called only while the process waits for a lock. For a moment
# the process may wait for the snapshot of this statement itself.
_BLOCKING_PROCESSES = f"""
SELECT {COLUMNS}
FROM pg_stat_activity AS waiting, unnest(pg_blocking_pids(waiting.pid)) AS blocking_pid
JOIN pg_stat_activity AS blocking ON blocking.pid = blocking_pid
WHERE waiting.pid = $1 AND waiting.wait_event_type = 'Lock' AND blocking_pid <> pg_backend_pid()
ORDER BY age_seconds DESC LIMIT 3
"""  # noqa: S608  # nosec

# pg_blocking_pids reports a prepared transaction as 0. It holds a lock on the table that the process waits
# for, or the process waits for its end. Its transaction id is a lock of its own.
_BLOCKING_PREPARED = """
SELECT gid, owner, extract(epoch FROM clock_timestamp() - prepared)::float AS age_seconds
FROM pg_stat_activity JOIN pg_locks AS waiting ON waiting.pid = pg_stat_activity.pid AND NOT waiting.granted
JOIN pg_locks AS held ON held.pid IS NULL AND (
    held.transactionid = waiting.transactionid
    OR (held.relation = waiting.relation AND held.database = waiting.database)
)
JOIN pg_locks AS own ON own.pid IS NULL AND own.virtualtransaction = held.virtualtransaction
JOIN pg_prepared_xacts ON transaction = own.transactionid
WHERE pg_stat_activity.pid = $1 AND wait_event_type = 'Lock' ORDER BY age_seconds DESC LIMIT 3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingProcess:
    """A server process that another process waits for."""

    pid: int
    usename: str | None
    application_name: str | None
    state: str | None
    query: str | None
    age_seconds: float | None
    """The age of its transaction."""

    snapshot_age: int | None
    """How many transactions have begun since its snapshot was taken. None if it has no snapshot."""

    def __str__(self) -> str:
        query = redact_text(" ".join((self.query or "unknown").split()))
        shortened = f"{query[:_QUERY_CHARACTERS]}…" if len(query) > _QUERY_CHARACTERS else query
        snapshot = "" if self.snapshot_age is None else f"snapshot {self.snapshot_age} transactions old, "
        return (
            f"process {self.pid} of user {self.usename or 'unknown'} ({self.application_name or 'unnamed'}), "
            f"{self.state or 'state unknown'}, {self.age_seconds or 0:.0f} s old, {snapshot}query: {shortened}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTransaction:
    """A transaction of a two-phase commit, which holds its locks without a process until it is ended."""

    gid: str
    owner: str
    age_seconds: float

    def __str__(self) -> str:
        return (
            f"prepared transaction '{redact_text(self.gid)}' of user {self.owner}, {self.age_seconds:.0f} s old, "
            "until COMMIT PREPARED or ROLLBACK PREPARED"
        )


async def read_blockers(connection: asyncpg.Connection, pid: int) -> list[BlockingProcess | PreparedTransaction]:
    """What the process waits for. Empty if it does not wait for a lock."""
    processes = await connection.fetch(_BLOCKING_PROCESSES, pid, timeout=QUERY_SECONDS)
    if processes:
        return [BlockingProcess(**process) for process in processes]
    prepared = await connection.fetch(_BLOCKING_PREPARED, pid, timeout=QUERY_SECONDS)
    return [PreparedTransaction(**transaction) for transaction in prepared]
