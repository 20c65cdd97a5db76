import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest
from structlog.testing import capture_logs

from app.database import Database
from tests.databases import INSERT, ONE, assert_all_connections_work, connected, open_all, outcomes, sleep
from tests.proxy import Proxy, proxied


@asynccontextmanager
async def two_hosts(database_url: str, second: str = "") -> AsyncIterator[tuple[Proxy, Database]]:
    """The first of two hosts, and a database whose connections lead there. The second is another way to the server.

    Args:
        database_url: The database behind both hosts.
        second: Another second host.
    """
    async with proxied(database_url) as first, proxied(database_url) as other:
        addresses = [proxy.url.split("@")[1].split("/")[0] for proxy in (first, other)]
        url = first.url.replace(addresses[0], f"{addresses[0]},{second or addresses[1]}")
        async with connected(url, statement_seconds=30.0, wait_seconds=5.0, connections=2) as database:
            await open_all(database)
            yield first, database


async def test_a_frozen_host_is_left_for_one_that_takes_writes(database_url):
    """Statements on it fail long before the end of their time, and the next ones succeed on the other host."""
    async with two_hosts(database_url) as (first, database):
        first.freeze()
        started = perf_counter()
        with capture_logs() as lines:
            assert ["database_unavailable"] * 2 == await outcomes(*(database.run(INSERT, {}) for _ in range(2)))
            assert ["ok"] * 6 == await outcomes(*(database.run(INSERT, {}) for _ in range(6)))

        assert perf_counter() - started < 15
        assert [("database_host_left", 1, 2)] == [(line["event"], line["host"], line["connections"]) for line in lines]
        await assert_all_connections_work(database)


@pytest.mark.parametrize("second", ["127.0.0.1:1", f"{'a' * 70}.invalid"])
async def test_a_frozen_host_is_kept_while_no_other_takes_writes(database_url, second):
    """Its statements end when it goes on: a short pause costs nothing. The second name cannot be encoded."""
    async with two_hosts(database_url, second=second) as (first, database):
        first.freeze()
        asyncio.get_running_loop().call_later(2.5, first.thaw)

        assert ["ok"] * 2 == await outcomes(*(database.run(ONE, {}) for _ in range(2)))


async def test_a_busy_host_is_kept(database_url):
    """A server that answers is not left, however long its statements take."""
    async with two_hosts(database_url) as (_, database):
        with capture_logs() as lines:
            assert ["ok"] * 2 == await outcomes(*(sleep(database, 2.5) for _ in range(2)))

        assert [] == lines


@pytest.mark.parametrize("parameters", ["&target_session_attrs=any", "&load_balance_hosts=random"])
async def test_a_url_of_several_hosts_works_whatever_it_wants(database_url, parameters):
    """Also where the hosts are not watched."""
    folder = database_url.split("host=")[1].split("&")[0]
    url = database_url.replace(folder, f"{folder},{folder}") + parameters
    async with connected(url) as database:
        await assert_all_connections_work(database)
