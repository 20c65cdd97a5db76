"""Reads from replicas: which server answers a read, and when the primary answers instead."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from time import perf_counter
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy.sql.elements import ClauseElement

from app.database import Database
from app.database.failures import NONE_KNOWN, ConstraintErrors
from app.database.pool import PoolState
from app.database_url import DatabaseHost, DatabaseUrl
from app.errors import (
    DatabasePermissionDeniedError,
    DatabaseRefusedError,
    DatabaseSetupError,
    DatabaseUnavailableError,
    SchemaOutdatedError,
    StartupError,
)

FRESH: Final = "fresh"
PRIMARY_SILENT: Final = "primary_silent"
ANSWERING: Final = (FRESH, PRIMARY_SILENT)
"""Why a replica answers: it does not lag too far; or the primary does not answer, so that nobody knows how far."""

NO_STANDBY: Final = "no_standby"
AWAY: Final = "away"
ANOTHER_CLUSTER: Final = "another_cluster"
SCHEMA_BEHIND: Final = "schema_behind"
LAGGING: Final = "lagging"
NO_CACHE: Final = "no_cache"
FAILED: Final = "failed"
EMPTY: Final = "empty"
OLDER: Final = "older"
UNUSABLE: Final = (NO_STANDBY, AWAY, ANOTHER_CLUSTER, SCHEMA_BEHIND, LAGGING)
"""Why a replica is not used. Of several replicas, the reason that comes last here is counted."""

ASKING_PRIMARY: Final = (*UNUSABLE, NO_CACHE, FAILED, EMPTY, OLDER)
"""Why the primary answers."""

_MOST_SAMPLES: Final = 1_000
"""How many positions of the primary are kept at most that a replica has not replayed: those of about four minutes."""

_ON_REPLICA_ONLY: Final = (
    DatabaseUnavailableError,  # also a statement that conflicts with what the replica replays
    SchemaOutdatedError,
    DatabasePermissionDeniedError,
    DatabaseSetupError,
    DatabaseRefusedError,
)
"""Failures after which the primary answers. Not a pool without a free connection, nor a statement that takes too long:
the primary would get the load that is too much for the replica."""

_PRESENT: Final = object()

Versions = Mapping[int, datetime]
"""The newest version of each resource that a client has, by the resource's id."""


class ReplicaObserver(Protocol):
    """Receives what the metrics show of replicas."""

    def replicas_opened(self, numbers: Iterable[str], reasons: Mapping[str, Iterable[str]]) -> None:
        """Receive the numbers of the replicas, and for each kind of server the reasons why it answers."""

    def read_answered(self, server: str, reason: str) -> None:
        """A read was sent to the `replica` or to the `primary`, for this reason."""

    def set_replica(self, number: str, *, usable: bool, lag_seconds: float) -> None:
        """Receive whether reads are sent to the replica with this number, and how far it lags at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimarySample:
    """What the primary has said of itself."""

    at: float
    """Before it was asked, by `perf_counter`."""

    flushed: int
    """All that was committed until then is before this position of its log."""

    timeline: str
    """Another one begins when a standby is promoted."""

    cluster: str
    """Which cluster and which database it is. A streaming replica has the same."""


class Replica:
    """One replica: its connections, and what is known of it."""

    def __init__(self, number: int, host: DatabaseHost | None, database: Database) -> None:
        self.number = str(number)
        """Of its host in the URL, from 1."""
        self.host = host
        """None if it cannot be asked whether it answers: its TLS begins without a question."""
        self.database = database
        self.problem: str | None = AWAY
        """Which of UNUSABLE it is, apart from its lag; None if it answers and has the schema."""
        self.is_standby = True
        self.schema_state = "unknown"
        """A `SchemaState`, or `unknown` before the first check."""
        self.revision: str | None = None
        self.current_at = float("-inf")
        """It contains all that was committed until this time, by `perf_counter`."""
        self._received = 0
        self._received_at = float("-inf")
        self._floor = 0
        self._pending = deque[PrimarySample](maxlen=_MOST_SAMPLES)

    def expect(self, sample: PrimarySample) -> None:
        """Remember what this replica should replay soon."""
        self._pending.append(sample)

    def forget(self) -> None:
        """Another primary leads, and positions of the one before do not count any more.

        This replica may have received what the new primary lacks, so it has to replay something newer than that.
        """
        self._pending.clear()
        self._floor = self._received

    def forget_if_beyond(self, sample: PrimarySample) -> None:
        """Forget all positions if the replica had received more than the primary has had since.

        It follows an earlier primary. A worker that starts after the failover sees no change of the timeline.
        """
        if self._received > sample.flushed and self._received_at < sample.at:
            self.forget()
            self.current_at = float("-inf")

    def replayed(self, position: int, *, received: int, at: float) -> None:
        """Note how far the replica was at this time."""
        self._received = max(position, received)
        self._received_at = at
        while self._pending and self._pending[0].flushed <= position:
            sample = self._pending.popleft()
            if sample.flushed > self._floor:
                self.current_at = sample.at


class Replicas:
    """The replicas of one worker, and its primary."""

    def __init__(
        self,
        primary: Database,
        replicas: Sequence[Replica],
        *,
        lag_seconds: float,
        observer: ReplicaObserver,
        named_versions: Callable[[Sequence[str]], Versions],
    ) -> None:
        self.primary = primary
        self.replicas = replicas
        self.lag_seconds = lag_seconds
        self.observer = observer
        self.primary_is_silent = False
        """Whether the primary has not answered in time when it was asked last."""
        self.cluster: str | None = None
        self._last_sample: PrimarySample | None = None
        self._named_versions = named_versions
        self._turn = 0
        self._reader = Reader(self, wants_primary=False, versions={})
        self._primary_reader = Reader(self, wants_primary=True, versions={})
        observer.replicas_opened(
            [replica.number for replica in replicas], {"replica": ANSWERING, "primary": ASKING_PRIMARY}
        )

    def reader(self, cache_control: Sequence[str], if_none_match: Sequence[str]) -> "Reader":
        """What runs the statements of a request with these lines of headers."""
        if any("no-cache" in line.lower() for line in cache_control):
            return self._primary_reader
        if if_none_match and (versions := self._named_versions(if_none_match)):
            return Reader(self, wants_primary=False, versions=versions)
        return self._reader

    def primary_answered(self, sample: PrimarySample) -> None:
        """Note the position of the primary."""
        before, self._last_sample = self._last_sample, sample
        self.primary_is_silent = False
        self.cluster = sample.cluster
        if before and (sample.timeline != before.timeline or sample.flushed < before.flushed):
            for replica in self.replicas:
                replica.forget()
        for replica in self.replicas:
            replica.forget_if_beyond(sample)
            replica.expect(sample)

    def verdict(self, replica: Replica, now: float) -> str:
        """Why this replica answers (one of ANSWERING) or does not (one of UNUSABLE)."""
        if replica.problem is not None:
            return replica.problem
        if not replica.is_standby:
            # A standby that was promoted while DATABASE_URL leads nowhere.
            return PRIMARY_SILENT if self.primary_is_silent else NO_STANDBY
        if now - replica.current_at <= self.lag_seconds:
            return FRESH
        return PRIMARY_SILENT if self.primary_is_silent else LAGGING

    def choose(self) -> tuple[Replica | None, str]:
        """The replica whose turn it is among those that can answer, if there is one, and why."""
        now = perf_counter()
        best = UNUSABLE[0]
        for _ in self.replicas:
            self._turn = (self._turn + 1) % len(self.replicas)
            replica = self.replicas[self._turn]
            verdict = self.verdict(replica, now)
            if verdict in ANSWERING:
                return replica, verdict
            best = max(best, verdict, key=UNUSABLE.index)
        return None, best

    @property
    def pools(self) -> dict[str, PoolState]:
        """The pool of each replica at this moment, by the replica's number."""
        return {replica.number: replica.database.state for replica in self.replicas}

    @property
    def answering(self) -> Replica | None:
        """A replica that answers reads, if there is one."""
        return self.choose()[0]


class Reader:
    """Runs the statements of a request that only reads: on a replica if that is as good as on the primary."""

    __slots__ = ("_replicas", "_versions", "_wants_primary")

    def __init__(self, replicas: Replicas, *, wants_primary: bool, versions: Versions) -> None:
        """Run statements.

        Args:
            replicas: The replicas of this worker.
            wants_primary: Whether the client asks for an answer of the primary.
            versions: What the client already has: no older version is an answer.
        """
        self._replicas = replicas
        self._wants_primary = wants_primary
        self._versions = versions

    @property
    def primary(self) -> Database:
        """The server that takes writes."""
        return self._replicas.primary

    async def run(
        self,
        statement: ClauseElement,
        parameters: Mapping[str, Any],
        *,
        constraint_errors: ConstraintErrors = NONE_KNOWN,
    ) -> Sequence[asyncpg.Record]:
        """Run one statement and fetch all its rows; arguments and errors are those of `Database.run`.

        The primary repeats a statement whose answer may be wrong because of the replica's lag: one without a row, and
        one with an older version than the client has.
        """
        replica, reason = (None, NO_CACHE) if self._wants_primary else self._replicas.choose()
        if replica is not None:
            try:
                rows = await replica.database.run(statement, parameters, constraint_errors=constraint_errors)
            except _ON_REPLICA_ONLY:
                reason = FAILED
            else:
                if _is_empty(rows):
                    reason = EMPTY
                elif self._versions and self._is_older(rows):
                    reason = OLDER
                else:
                    self._replicas.observer.read_answered("replica", reason)
                    return rows
        self._replicas.observer.read_answered("primary", reason)
        return await self.primary.run(statement, parameters, constraint_errors=constraint_errors)

    def _is_older(self, rows: Sequence[asyncpg.Record]) -> bool:
        """Whether a row has an older version than the client."""
        for row in rows:
            resource_id = row.get("id")
            version = None if resource_id is None else self._versions.get(resource_id)
            if version is not None and row.get("updated_at", version) < version:
                return True
        return False


def _is_empty(rows: Sequence[asyncpg.Record]) -> bool:
    """Whether nothing was found. A list with a total then has one row, whose `id` is null."""
    return not rows or rows[0].get("id", _PRESENT) is None


@asynccontextmanager
async def opened(
    connect: Callable[[Callable[[], DatabaseUrl], int], AbstractAsyncContextManager[Database]],
    read_url: Callable[[], DatabaseUrl | None],
    primary: Database,
    *,
    lag_seconds: float,
    observer: ReplicaObserver,
    named_versions: Callable[[Sequence[str]], Versions],
) -> AsyncIterator[Replicas | None]:
    """The replicas of one worker, each with connections of its own; None without a URL. Nothing is connected yet.

    At the end of the block the connections are closed, those to the primary as well.

    Args:
        connect: Opens a database by what reads its URL, with the limits of the primary, and a number for its budget.
        read_url: Returns the address of the replicas. It is called again when one of them refuses the login.
        primary: The server that takes writes.
        lag_seconds: How far a replica may lag behind it.
        observer: Receives what the metrics show.
        named_versions: Returns the versions that the lines of `If-None-Match` name.
    """
    url = read_url()
    if url is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        replicas = [
            Replica(
                number,
                None if url.tls.is_direct else host,
                await stack.enter_async_context(connect(_reading(read_url, host), number)),
            )
            for number, host in enumerate(url.hosts, 1)
        ]
        try:
            yield Replicas(primary, replicas, lag_seconds=lag_seconds, observer=observer, named_versions=named_versions)
        finally:
            # At the same time: each takes two seconds if its server is frozen.
            await asyncio.gather(primary.close(), *(replica.database.close() for replica in replicas))


def _reading(read_url: Callable[[], DatabaseUrl | None], host: DatabaseHost) -> Callable[[], DatabaseUrl]:
    """What reads the address of one of the replicas."""

    def read() -> DatabaseUrl:
        url = read_url()
        if url is None or host not in url.hosts:
            raise StartupError("DATABASE_REPLICA_URL names other hosts than at the start: send SIGHUP to use them.")
        return replace(url, hosts=(host,))

    return read
