"""Asks the primary and its replicas several times a second how far they are."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import TextClause, text

from app.database import named
from app.database.logins import answers
from app.database.replicas import (
    ANOTHER_CLUSTER,
    ANSWERING,
    AWAY,
    LAGGING,
    SCHEMA_BEHIND,
    PrimarySample,
    Replica,
    Replicas,
)
from app.errors import RequestError, StatementTimeoutError, root_cause
from app.health.last_report import LastReport
from app.health.schema_state import Revisions, SchemaState, read_schema

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 0.25
"""The pause between two questions to a server. It is shorter where a replica may lag by less than a second."""

ANSWER_SECONDS: Final = 0.2
"""After this time without an answer a replica is asked whether it answers at all, for as long again. A request that
waits for a connection to a frozen one still has time for the primary."""

SCHEMA_SECONDS: Final = 1.0
"""The pause between two checks of a replica's schema."""

LOG_SECONDS: Final = 5.0
"""The least time between two lines about one replica."""

FIRST_SECONDS: Final = 2.0
"""How long it may take after the start until it is known how far a replica lags. A worker serves when it is known, or
after this time: its reads would wait for a primary that is silent."""

_CLUSTER: Final = "(SELECT system_identifier FROM pg_control_system()) || '/' || current_database() AS cluster"

_flushed = named(
    "read_primary_position",
    text(f"""
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed,
    left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) AS timeline, {_CLUSTER}
"""),  # of a constant
)
_replayed = named(
    "read_replica_position",
    text(f"""
SELECT pg_is_in_recovery() AS is_standby,
    (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0'::pg_lsn)::bigint AS replayed,
    (coalesce(pg_last_wal_receive_lsn(), '0/0') - '0/0'::pg_lsn)::bigint AS received, {_CLUSTER}
"""),  # of a constant
)

_CAUSES: Final = {
    "away": "The replica does not answer.",
    "no_standby": "The server is no standby: it may be the primary itself.",
    "another_cluster": "The server is a standby of another cluster, or the database is not that of DATABASE_URL.",
    "schema_behind": "The replica has an older schema than this release needs.",
    "lagging": "The replica lags behind the primary by more than DATABASE_REPLICA_LAG_SECONDS.",
    "primary_silent": "The primary does not answer, so the lag of the replica is unknown.",
    "fresh": None,
}


@asynccontextmanager
async def checking_replicas(
    replicas: Replicas | None, revisions: Revisions, folder: Path | None
) -> AsyncIterator[None]:
    """Ask the servers in the background while the block runs; without replicas nothing is asked.

    Args:
        replicas: The replicas of this worker. They learn what is found.
        revisions: The revisions of this code.
        folder: The folder that the workers share. None if this process is alone.
    """
    if replicas is None:
        yield
        return
    checks: list[_PrimaryCheck | _ReplicaCheck] = [_PrimaryCheck(replicas)]
    checks += [_ReplicaCheck(replicas, replica, revisions, folder) for replica in replicas.replicas]
    tasks = [asyncio.ensure_future(check.run()) for check in checks]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                for check in checks:
                    await check.has_ended_once.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _PrimaryCheck:
    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._answer_seconds = replicas.lag_seconds / 2
        """Whether the primary is silent is known before the replicas seem to lag."""
        self.has_ended_once = asyncio.Event()
        """Whether it is known if the primary is silent."""
        self._has_crashed = False

    async def run(self) -> None:
        """Ask the primary for its position until the task is cancelled."""
        replicas = self._replicas
        while True:
            at = perf_counter()
            asking = asyncio.ensure_future(replicas.primary.check(_flushed))
            try:
                while not await _ends(asking, self._answer_seconds):
                    replicas.primary_is_silent = not await replicas.primary.answers(ANSWER_SECONDS)
                    self.has_ended_once.set()
                row = (await asking)[0]
                replicas.primary_answered(
                    PrimarySample(at=at, flushed=row["flushed"], timeline=row["timeline"], cluster=row["cluster"])
                )
                self._has_crashed = False
            except StatementTimeoutError:
                replicas.primary_is_silent = False  # it works and is busy
            except RequestError:
                replicas.primary_is_silent = True
            except Exception:
                replicas.primary_is_silent = True
                if not self._has_crashed:
                    log.exception("replica_check_failed", server="primary")
                self._has_crashed = True
            finally:
                asking.cancel()
            self.has_ended_once.set()
            await asyncio.sleep(_interval(replicas))


class _ReplicaCheck:
    def __init__(self, replicas: Replicas, replica: Replica, revisions: Revisions, folder: Path | None) -> None:
        self._replicas = replicas
        self._replica = replica
        self._revisions = revisions
        self._last_report = LastReport(folder, f"replica-{replica.number}")
        self.has_ended_once = asyncio.Event()
        """Whether it is known if the replica answers."""
        self._started_at = perf_counter()
        self._schema_at = float("-inf")
        self._logged: str | None = None
        self._logged_at = float("-inf")
        self._has_crashed = False

    async def run(self) -> None:
        """Ask the replica for its position, and for its schema less often, until the task is cancelled."""
        while True:
            cause = None
            try:
                await self._check()
                self._has_crashed = False
            except StatementTimeoutError:
                pass  # it works and is busy; that it may lag meanwhile shows by its position
            except RequestError as error:
                self._replica.problem, cause = AWAY, root_cause(error)
            except Exception:
                self._replica.problem = AWAY
                if not self._has_crashed:
                    log.exception("replica_check_failed", server="replica")
                self._has_crashed = True
            self._report(cause)
            self.has_ended_once.set()
            await asyncio.sleep(_interval(self._replicas))

    async def _check(self) -> None:
        replica = self._replica
        row = (await self._answer(_replayed))[0]
        now = perf_counter()
        if replica.is_standby and not row["is_standby"]:
            # It may be the primary now, whose connections are those of DATABASE_URL.
            replica.database.drop_connections()
        replica.is_standby = row["is_standby"]
        if row["cluster"] != (self._replicas.cluster or row["cluster"]):
            replica.problem = ANOTHER_CLUSTER
            return
        replica.replayed(row["replayed"], received=row["received"], at=now)
        if now >= self._schema_at + SCHEMA_SECONDS:
            schema = await read_schema(replica.database)
            self._schema_at = now
            replica.schema_state, replica.revision = self._revisions.state(schema), schema.revision
        replica.problem = SCHEMA_BEHIND if replica.schema_state == SchemaState.BEHIND else None

    async def _answer(self, statement: TextClause) -> Sequence[asyncpg.Record]:
        """The answer to a statement. If it is late, and the server does not answer at all, the replica is left."""
        replica = self._replica
        asking = asyncio.ensure_future(replica.database.check(statement))
        try:
            if not await _ends(asking, ANSWER_SECONDS) and replica.problem is None and await self._is_frozen():
                replica.problem = AWAY
                replica.database.drop_connections()
            return await asking
        finally:
            asking.cancel()

    async def _is_frozen(self) -> bool:
        """Whether the replica does not answer at all, and the primary does. A busy one answers."""
        host = self._replica.host
        if host is None or self._replicas.primary_is_silent:
            return False
        return not await answers(host, ANSWER_SECONDS) and not self._replicas.primary_is_silent

    def _report(self, cause: str | None) -> None:
        """Tell the metrics, and write a line if the replica can be used now and could not before, or the reverse."""
        replica, now = self._replica, perf_counter()
        verdict = self._replicas.verdict(replica, now)
        usable = verdict in ANSWERING
        lag_seconds = now - max(replica.current_at, self._started_at)
        self._replicas.observer.set_replica(replica.number, usable=usable, lag_seconds=lag_seconds)
        state = "usable" if usable else verdict
        if state == self._logged or now < self._logged_at + LOG_SECONDS:
            return
        if self._logged is None and verdict == LAGGING and now < self._started_at + FIRST_SECONDS:
            return
        self._logged, self._logged_at = state, now
        write = log.debug if not self._last_report.replace(state) else log.info if usable else log.warning
        fields: dict[str, Any] = {"replica": replica.number, "usable": usable, "reason": verdict}
        write("replica_changed", **fields, lag_seconds=round(lag_seconds, 3), cause=cause or _CAUSES[verdict])


async def _ends(asking: "asyncio.Future[Any]", seconds: float) -> bool:
    """Whether this ends within the time. It goes on if it does not."""
    done, _ = await asyncio.wait({asking}, timeout=seconds)
    return bool(done)


def _interval(replicas: Replicas) -> float:
    return min(INTERVAL_SECONDS, replicas.lag_seconds / 4)
