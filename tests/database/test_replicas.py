"""Where a read is answered. Two databases of one server stand for a primary and a replica that does not follow it."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any
from unittest.mock import AsyncMock

import pytest

from app.database import pool
from app.database.replicas import LAGGING, NO_STANDBY, PRIMARY_SILENT, PrimarySample, Replica, Replicas, opened
from app.database_url import DatabaseUrl
from app.errors import DatabaseUnavailableError, PoolExhaustedError, StartupError, StatementTimeoutError
from app.http.etags import etag, newest_named
from tests.cluster import APPLICATION, as_role, create_database, execute
from tests.databases import ONE, connected, open_all, outcomes, sleep
from tests.proxy import proxied
from tests.sample import crud

FOREVER = float("inf")


class Reads(Counter[tuple[str, str]]):
    """Counts the reads by server and reason."""

    def replicas_opened(self, numbers, reasons):
        """Keep the reasons that are declared."""
        self.declared = {(server, reason) for server, of_server in reasons.items() for reason in of_server}

    def read_answered(self, server, reason):
        """Count a read."""
        assert (server, reason) in self.declared
        self[server, reason] += 1

    def set_replica(self, number, *, usable, lag_seconds):
        """It is not tested here."""


@pytest.fixture
def replica_url(cluster, _template, request):
    """Another migrated database, without the rows of the first."""
    name = f"replica_{abs(hash(request.node.name))}"
    yield as_role(create_database(cluster, name, _template), APPLICATION)
    execute(cluster.url, f'DROP DATABASE "{name}" WITH (FORCE)')


@asynccontextmanager
async def replicated(database_url, *replica_urls, **limits):
    """Replicas that can be used, and the number of reads."""
    reads = Reads()
    async with connected(database_url, **limits) as primary:
        replicas = []
        for number, url in enumerate(replica_urls, 1):
            context = connected(url, **limits)
            replicas.append((Replica(number, None, await context.__aenter__()), context))
        for replica, _ in replicas:
            replica.problem, replica.current_at = None, FOREVER
        try:
            yield (
                Replicas(
                    primary,
                    [replica for replica, _ in replicas],
                    lag_seconds=1.0,
                    observer=reads,
                    named_versions=newest_named,
                ),
                reads,
            )
        finally:
            for _, context in replicas:
                await context.__aexit__(None, None, None)


async def copy_of(sample, replicas, **changes):
    """Store a row of the same id on the replica."""
    return await crud.create(replicas.replicas[0].database, {"name": sample.name, **changes})


async def test_a_replica_answers_what_it_has(database_url, replica_url):
    """The primary is not asked."""
    async with replicated(database_url, replica_url) as (replicas, reads):
        sample = await crud.create(replicas.primary, {"name": "Kettle"})
        await copy_of(sample, replicas, name="Copy")
        reader = replicas.reader([], [])

        assert "Copy" == (await crud.get(reader, sample.id)).name
        assert replicas.primary is reader.primary
        assert {("replica", "fresh"): 1} == reads


async def test_what_a_replica_lacks_is_asked_of_the_primary(database_url, replica_url):
    """So a row that was just created is never missing: by its id, in a page with a total, and after a cursor."""
    async with replicated(database_url, replica_url) as (replicas, reads):
        sample = await crud.create(replicas.primary, {"name": "Kettle"})
        reader = replicas.reader([], [])

        assert sample == await crud.get(reader, sample.id)
        assert [sample] == (await crud.page(reader, limit=1, offset=0)).samples
        assert [sample] == (await crud.page_after(reader, 0, limit=1)).samples
        with pytest.raises(crud.SampleNotFoundError):
            await crud.get(reader, 999)
        assert {("primary", "empty"): 4} == reads


async def test_a_version_that_the_client_knows_to_be_older_is_asked_of_the_primary(database_url, replica_url):
    """The newest tag of the resource counts, also a weak one; tags of others, and of older versions, do not."""
    async with replicated(database_url, replica_url) as (replicas, reads):
        stale = await copy_of(await crud.create(replicas.primary, {"name": "Kettle"}), replicas)
        sample = await crud.change(replicas.primary, stale.id, {"name": "Pot"}, versions=None)
        assert sample.updated_at > stale.updated_at
        newer, older = etag(sample), etag(stale)

        for lines in ([f'"x", W/{newer}'], [older, newer]):
            assert sample == await crud.get(replicas.reader([], lines), sample.id)
        for lines in ([older], [newer.replace(f'"{sample.id}-', '"77-')], ["*"], ['"x'], ['"1-0"']):
            assert stale == await crud.get(replicas.reader([], lines), sample.id)
        assert {("primary", "older"): 2, ("replica", "fresh"): 5} == reads


@pytest.mark.parametrize("lines", [["no-cache"], ["max-age=0, No-Cache"], ["max-age=0", "no-cache"]])
async def test_a_client_can_ask_for_an_answer_of_the_primary(database_url, replica_url, lines):
    """By Cache-Control: no-cache."""
    async with replicated(database_url, replica_url) as (replicas, reads):
        sample = await crud.create(replicas.primary, {"name": "Kettle"})
        await copy_of(sample, replicas, name="Copy")

        assert "Kettle" == (await crud.get(replicas.reader(lines, []), sample.id)).name
        assert "Copy" == (await crud.get(replicas.reader(["max-age=0"], []), sample.id)).name
        assert {("primary", "no_cache"): 1, ("replica", "fresh"): 1} == reads


async def test_the_primary_answers_if_the_replica_fails(database_url, replica_url):
    """Its connections break, it cannot be reached, or it has an older schema."""
    await asyncio.to_thread(execute, as_role(replica_url, "postgres"), "DROP TABLE samples")
    async with proxied(replica_url) as proxy, replicated(database_url, proxy.url) as (replicas, reads):
        sample = await crud.create(replicas.primary, {"name": "Kettle"})
        reader = replicas.reader([], [])
        assert sample == await crud.get(reader, sample.id)
        proxy.freeze()
        reading = asyncio.create_task(crud.get(reader, sample.id))
        await asyncio.sleep(0.1)
        proxy.cut()
        assert sample == await reading

        assert {("primary", "failed"): 2} == reads


async def test_a_full_pool_and_a_slow_statement_are_not_asked_of_the_primary(database_url, replica_url):
    """It would get the load that is too much for the replica."""
    async with replicated(database_url, replica_url, connections=1, wait_seconds=0.2) as (replicas, reads):
        reader = replicas.reader([], [])
        holding = asyncio.create_task(sleep(replicas.replicas[0].database, 0.6))
        await asyncio.sleep(0)
        with pytest.raises(PoolExhaustedError):
            await reader.run(ONE, {})
        await holding
        with pytest.raises(StatementTimeoutError):
            await sleep(reader, 5)
        assert not reads


async def test_requests_that_wait_for_a_frozen_replica_are_answered_by_the_primary(database_url, replica_url):
    """When its connections are dropped, both those that run a statement and those that wait for a connection."""
    async with (
        proxied(replica_url) as proxy,
        replicated(database_url, proxy.url, wait_seconds=5.0) as (replicas, reads),
    ):
        replica = replicas.replicas[0].database
        await open_all(replica)
        proxy.freeze()
        reading = [asyncio.create_task(replicas.reader([], []).run(ONE, {})) for _ in range(12)]
        await asyncio.sleep(0.1)
        started = perf_counter()
        replica.drop_connections()

        assert [1] * 12 == [rows[0]["one"] for rows in await asyncio.gather(*reading)]
        assert perf_counter() - started < 1
        assert {("primary", "failed"): 12} == reads
        proxy.thaw()
        assert ["ok"] * 6 == await outcomes(*(replica.run(ONE, {}) for _ in range(6)))


async def test_nothing_found_is_no_answer_while_the_primary_is_away(database_url, replica_url):
    """Nobody knows whether the row exists, so it is 503 and not 404."""
    async with proxied(database_url) as proxy, replicated(proxy.url, replica_url) as (replicas, _):
        sample = await copy_of(await crud.create(replicas.primary, {"name": "Kettle"}), replicas)
        replicas.primary_is_silent = True
        proxy.freeze()
        proxy.cut()
        reader = replicas.reader([], [])
        assert sample.id == (await crud.get(reader, sample.id)).id
        with pytest.raises(DatabaseUnavailableError):
            await crud.get(reader, 999)


async def test_several_replicas_take_turns(database_url, replica_url):
    """Those that cannot be used are passed over."""
    async with replicated(database_url, replica_url, replica_url, replica_url) as (replicas, _):
        replicas.replicas[1].is_standby = False
        assert ["3", "1", "3", "1"] == [replicas.choose()[0].number for _ in range(4)]
        replicas.replicas[0].current_at = replicas.replicas[2].current_at = 0.0
        assert (None, LAGGING) == replicas.choose()


def sample_at(at, flushed, timeline="00000001"):
    """What the primary says."""
    return PrimarySample(at=at, flushed=flushed, timeline=timeline, cluster="1/a")


def one_replica():
    """A replica that answers, and its worker."""
    database: Any = None
    replica = Replica(1, None, database)
    replica.problem = None
    return replica, Replicas(database, [replica], lag_seconds=1.0, observer=Reads(), named_versions=newest_named)


def test_the_lag_is_the_age_of_the_newest_position_that_is_replayed():
    """Not that of the newest position that was received."""
    replica, replicas = one_replica()
    for at, flushed in [(10.0, 100), (10.25, 200), (10.5, 300)]:
        replicas.primary_answered(sample_at(at, flushed))
    assert LAGGING == replicas.verdict(replica, 10.5)  # before the first answer nothing is known

    replica.replayed(250, received=900, at=10.6)

    assert 10.25 == replica.current_at
    assert "fresh" == replicas.verdict(replica, 11.25)
    assert LAGGING == replicas.verdict(replica, 11.26)
    replica.replayed(250, received=900, at=10.6)
    assert 10.25 == replica.current_at


def test_an_idle_primary_leaves_no_replica_behind():
    """The same position again is one that is replayed."""
    replica, replicas = one_replica()
    for number in range(8):
        replicas.primary_answered(sample_at(10.0 + number, 100))
        replica.replayed(100, received=100, at=10.1 + number)
        assert 10.0 + number == replica.current_at


def test_reads_go_on_while_the_primary_is_silent():
    """Nobody knows how far the replica lags. When the primary answers again, that counts."""
    replica, replicas = one_replica()
    replicas.primary_is_silent = True
    assert PRIMARY_SILENT == replicas.verdict(replica, 99.0)
    replicas.primary_answered(sample_at(99.0, 100))
    assert LAGGING == replicas.verdict(replica, 99.1)


def test_a_server_that_leads_is_asked_only_if_no_other_does():
    """It was promoted, and DATABASE_URL leads nowhere; or it is the primary, which has its own connections."""
    replica, replicas = one_replica()
    replica.is_standby, replica.current_at = False, FOREVER
    assert NO_STANDBY == replicas.verdict(replica, 1.0)
    replicas.primary_is_silent = True
    assert PRIMARY_SILENT == replicas.verdict(replica, 1.0)


@pytest.mark.parametrize("change", [{"timeline": "00000002"}, {"flushed": 400}], ids=["timeline", "position"])
def test_a_replica_that_is_beyond_a_new_primary_lags(change):
    """It has received what the new primary never had. Positions up to there say nothing about the new ones."""
    replica, replicas = one_replica()
    replicas.primary_answered(sample_at(10.0, 500))
    replica.replayed(500, received=700, at=10.1)
    for at, flushed in [(20.0, 600), (21.0, 700)]:
        replicas.primary_answered(
            sample_at(at, **{"flushed": flushed} | change if at == 20.0 else {"flushed": flushed})
        )
        replica.replayed(700, received=700, at=at + 0.1)
        assert replica.current_at <= 10.0

    replicas.primary_answered(replace(sample_at(22.0, 800), **{k: v for k, v in change.items() if k == "timeline"}))
    replica.replayed(800, received=800, at=22.1)

    assert 22.0 == replica.current_at


def test_a_replica_that_is_ahead_of_the_primary_follows_an_earlier_one():
    """A worker that starts after the failover sees no change of the timeline."""
    replica, replicas = one_replica()
    for at in (10.0, 10.25):
        replicas.primary_answered(sample_at(at, 600))
        replica.replayed(700, received=700, at=at + 0.1)
    assert LAGGING == replicas.verdict(replica, 10.4)

    replicas.primary_answered(sample_at(20.0, 800))
    replica.replayed(800, received=800, at=20.1)
    assert 20.0 == replica.current_at


def test_a_replica_may_answer_later_than_the_primary():
    """Then it may have received what was written meanwhile."""
    replica, replicas = one_replica()
    replica.replayed(700, received=700, at=10.1)
    replicas.primary_answered(sample_at(10.0, 600))
    replica.replayed(700, received=700, at=10.2)

    assert 10.0 == replica.current_at


async def test_each_host_has_connections_of_its_own(database_url):
    """And finds its password again in the file. Another list of hosts needs a reload."""
    urls = [DatabaseUrl.parse_replicas(f"postgresql://{hosts}/n") for hosts in ("a:1,b:2", "a:1,b:2", "a:1")]
    read = []

    @asynccontextmanager
    async def connect(read_url, number):
        read.append(read_url)
        assert len(read) == number
        yield AsyncMock()

    async with opened(
        connect, lambda: urls[0], AsyncMock(), lag_seconds=1.0, observer=Reads(), named_versions=newest_named
    ) as replicas:
        assert replicas
        assert ["1", "2"] == [replica.number for replica in replicas.replicas]
        assert [("a", 1), ("b", 2)] == [(url().hosts[0].name, url().hosts[0].port) for url in read]
        assert {"any"} == {url().session_attributes for url in read}
        del urls[:2]
        assert "a" == read[0]().hosts[0].name
        with pytest.raises(StartupError, match="names other hosts than at the start"):
            read[1]()


async def test_pools_of_frozen_servers_are_closed_at_the_same_time(database_url, monkeypatch):
    """The end of a worker does not take a time for each."""
    monkeypatch.setattr(pool, "CLOSE_SECONDS", 3.0)
    async with proxied(database_url) as proxy, connected(proxy.url) as primary:
        host = proxy.url.partition("@")[2].partition("/")[0]
        url = DatabaseUrl.parse_replicas(proxy.url.replace(host, f"{host},{host.replace('127.0.0.1', 'localhost')}"))
        async with opened(
            lambda read_url, _: connected(read_url()),
            lambda: url,
            primary,
            lag_seconds=1.0,
            observer=Reads(),
            named_versions=newest_named,
        ) as replicas:
            assert replicas
            databases = [primary, *(replica.database for replica in replicas.replicas)]
            assert ["ok"] * 3 == await outcomes(*(sleep(database, 0.01) for database in databases))
            proxy.freeze()
            started = perf_counter()
    assert 3 <= perf_counter() - started < 6
