"""A real standby, and what the worker finds out about it."""

import asyncio
from contextlib import asynccontextmanager
from time import perf_counter

import asyncpg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from app.database import replicas as reads
from app.database_url import DatabaseUrl
from app.health import replica_check
from app.health.last_report import LastReport
from app.health.readiness import Readiness
from app.health.replica_check import checking_replicas
from app.health.schema_state import Revisions, SchemaState
from app.http.etags import newest_named
from tests.cluster import processes_stopped
from tests.databases import COUNT, INSERT, connected, outcome, outcomes
from tests.health.test_readiness import Reports
from tests.replication import frozen, primary_and_standby, url_of

pytestmark = pytest.mark.slow


SLEEP = text("SELECT pg_sleep(3)")


class Observer:
    """Keeps the reads, and what is said of each replica."""

    def __init__(self):
        self.reads = []
        self.usable = {}

    def replicas_opened(self, numbers, reasons):
        """Take all."""

    def read_answered(self, server, reason):
        """Keep a read."""
        self.reads.append((server, reason))

    def set_replica(self, number, *, usable, lag_seconds):
        """Keep what is known last."""
        assert lag_seconds >= 0
        self.usable[number] = usable


@pytest.fixture(scope="module")
def servers():
    """The primary and its standby."""
    with primary_and_standby() as running:
        yield running


@asynccontextmanager
async def watched(primary_url, replica_url, revisions=None):
    """A worker's replicas, which are checked."""
    async with (
        connected(primary_url, statement_seconds=5.0) as primary,
        reads.opened(
            _connected,
            lambda: DatabaseUrl.parse_replicas(replica_url),
            primary,
            lag_seconds=1.0,
            observer=Observer(),
            named_versions=newest_named,
        ) as replicas,
        checking_replicas(replicas, revisions or Revisions(), None),
    ):
        yield replicas


def _connected(read_url, _number):
    # On a busy machine, too, statements end in time, and a frozen replica is left before a wait ends.
    return connected(read_url(), wait_seconds=5.0, statement_seconds=5.0)


async def until(replicas, verdict, seconds=15.0):
    """Return after how many seconds the first replica has this verdict."""
    started = perf_counter()
    async with asyncio.timeout(seconds):
        while verdict != replicas.verdict(replicas.replicas[0], perf_counter()):  # noqa: ASYNC110  # changes by itself
            await asyncio.sleep(0.01)
    return perf_counter() - started


async def run(url, statement):
    """Run a statement beside the worker."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_replica_that_stops_to_replay_lags(servers, monkeypatch):
    """Only if there is something to replay. It is used again when it has replayed it."""
    monkeypatch.setattr(replica_check, "LOG_SECONDS", 0.0)
    primary, standby = servers
    with capture_logs() as lines:
        async with watched(url_of(primary), url_of(standby)) as replicas:
            await until(replicas, reads.FRESH)
            await run(standby.url, "SELECT pg_wal_replay_pause()")
            try:
                await asyncio.sleep(1.5)
                assert reads.FRESH == replicas.verdict(replicas.replicas[0], perf_counter())
                await replicas.primary.run(INSERT, {})
                assert 0.3 < await until(replicas, reads.LAGGING)
                assert "ok" == (await outcome(replicas.reader([], []).run(COUNT, {})))[0]
                assert [("primary", "lagging")] == replicas.observer.reads
                await asyncio.sleep(0.3)
                assert {"1": False} == replicas.observer.usable
            finally:
                await run(standby.url, "SELECT pg_wal_replay_resume()")
            await until(replicas, reads.FRESH)
    changes = [(line["usable"], line["reason"]) for line in lines if line["event"] == "replica_changed"]
    assert [(True, "fresh"), (False, "lagging")] == changes[:2]


async def test_a_frozen_replica_is_left_before_its_requests_fail(servers):
    """The primary answers them, those that run and those that wait. Later the replica is used again."""
    primary, standby = servers
    async with watched(url_of(primary), url_of(standby)) as replicas:
        await until(replicas, reads.FRESH)
        reader = replicas.reader([], [])
        with processes_stopped(standby):
            started = perf_counter()
            assert ["ok"] * 20 == await outcomes(*(reader.run(COUNT, {}) for _ in range(20)))
            assert perf_counter() - started < 5
            assert reads.AWAY == replicas.verdict(replicas.replicas[0], perf_counter())
            assert ["ok"] * 20 == await outcomes(*(reader.run(COUNT, {}) for _ in range(20)))
        await until(replicas, reads.FRESH)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda primary, standby: url_of(primary), reads.NO_STANDBY),
        (lambda primary, standby: url_of(standby).replace("@/postgres", "@/template1"), reads.ANOTHER_CLUSTER),
        (lambda primary, standby: "postgresql://a@127.0.0.1:1/b", reads.AWAY),
    ],
)
async def test_a_server_that_is_no_replica_is_not_asked(servers, change, verdict):
    """The primary itself, the replica of another database, and none at all."""
    primary, standby = servers
    async with watched(url_of(primary), change(primary, standby)) as replicas:
        await until(replicas, verdict)
        await asyncio.sleep(0.6)
        assert verdict == replicas.verdict(replicas.replicas[0], perf_counter())
        assert "ok" == (await outcome(replicas.reader([], []).run(COUNT, {})))[0]
        assert [("primary", verdict)] == replicas.observer.reads


async def test_a_replica_without_the_schema_is_not_asked(servers):
    """It has not replayed the migration yet that this code needs."""

    class Behind(Revisions):
        def state(self, schema):
            """Every schema is too old."""
            return SchemaState.BEHIND

    primary, standby = servers
    async with watched(url_of(primary), url_of(standby), Behind()) as replicas:
        await until(replicas, reads.SCHEMA_BEHIND)


async def test_a_busy_primary_is_not_silent(servers):
    """While all connections of the worker are in use, a replica that lags is not used."""
    primary, standby = servers
    async with watched(url_of(primary), url_of(standby)) as replicas:
        await until(replicas, reads.FRESH)
        await run(standby.url, "SELECT pg_wal_replay_pause()")
        try:
            await replicas.primary.run(INSERT, {})
            waits = asyncio.gather(
                *(replicas.primary.run(SLEEP, {}) for _ in range(replicas.primary.state.size)), return_exceptions=True
            )
            while not waits.done():
                assert reads.PRIMARY_SILENT != replicas.verdict(replicas.replicas[0], perf_counter())
                await asyncio.sleep(0.01)
            assert reads.LAGGING == replicas.verdict(replicas.replicas[0], perf_counter())
            await waits
        finally:
            await run(standby.url, "SELECT pg_wal_replay_resume()")


async def test_reads_and_readiness_outlive_the_primary(servers):
    """Reads are answered, the worker is ready, and it says that it is read-only."""
    primary, standby = servers
    async with watched(url_of(primary), url_of(standby)) as replicas:
        worker = Readiness(replicas.primary, Revisions(), Reports(), LastReport(None, "readiness"), replicas=replicas)
        await until(replicas, reads.FRESH)
        assert ("ok", True) == ((checks := await worker.check()).database, checks.passed)
        with frozen(primary):
            assert await until(replicas, reads.PRIMARY_SILENT) < 5
            assert ["ok"] * 20 == await outcomes(*(replicas.reader([], []).run(COUNT, {}) for _ in range(20)))
            async with watched(url_of(primary), url_of(standby)) as of_new_worker:
                assert ["ok"] == await outcomes(of_new_worker.reader([], []).run(COUNT, {}))
                assert [("replica", "primary_silent")] == of_new_worker.observer.reads
        await asyncio.sleep(1.5)
        assert ["ok"] * 20 == await outcomes(*(replicas.reader([], []).run(COUNT, {}) for _ in range(20)))
        checks = await worker.check()
        assert ("read_only", "current", True, False) == (
            checks.database, checks.schema, checks.passed, checks.reachable,
        )  # fmt: skip
        assert "database_unavailable" == (await outcome(replicas.primary.run(INSERT, {})))[0]
        await run(standby.url, "SELECT pg_promote()")
        await asyncio.sleep(0.6)
        assert ["ok"] * 6 == await outcomes(*(replicas.reader([], []).run(COUNT, {}) for _ in range(6)))
