"""Logins that take longer than a request waits for them. The server finishes each, also if its client has gone."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import psutil
import pytest

from app import database as databases
from app.database import logins
from app.database.connection import Connector
from app.database_url import DatabaseHost, DatabaseUrl
from app.errors import DatabaseUnavailableError
from tests.cluster import execute
from tests.databases import ONE, PoolEvents, assert_all_connections_work, connected, outcomes, until_free
from tests.proxy import proxied

ROLE = "slowly_logged_in"


def sessions(cluster):
    """The server's processes for ROLE, also those that are still logging in."""
    server = psutil.Process(int((cluster.data / "postmaster.pid").read_text().split()[0]))
    titles = []
    for process in server.children():
        try:
            titles.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return sum(f" {ROLE} " in title for title in titles)


@asynccontextmanager
async def held(database_url, **limits):
    """A proxy that lets nobody log in, and a database behind it."""
    async with proxied(database_url) as proxy, connected(proxy.url, **limits) as database:
        proxy.hold_logins()
        yield proxy, database


async def until(condition):
    """Wait until this is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # it changes by itself
            await asyncio.sleep(0.01)


async def test_a_server_whose_logins_are_slow_has_no_more_sessions_than_the_pool(own_cluster, monkeypatch):
    """Requests fail in their time meanwhile, and the logins that they have begun serve later ones."""
    monkeypatch.setattr(logins, "SILENT_SECONDS", 30.0)
    for statement in (
        f"CREATE ROLE {ROLE} LOGIN",
        "ALTER SYSTEM SET post_auth_delay = '4s'",
        "SELECT pg_reload_conf()",
    ):
        await asyncio.to_thread(execute, own_cluster.url, statement)
    codes = Counter[str]()
    most = 0

    async def request(database):
        while not codes["ok"]:
            codes.update(await outcomes(database.run(ONE, {})))

    url = own_cluster.url.replace("postgres@", f"{ROLE}@")
    async with connected(url, connections=3, wait_seconds=0.5) as database:
        requests = [asyncio.create_task(request(database)) for _ in range(6)]
        async with asyncio.timeout(60):
            while not codes["ok"]:
                most = max(most, sessions(own_cluster))
                await asyncio.sleep(0.05)
        await asyncio.gather(*requests)
        await assert_all_connections_work(database)

    assert 3 == most
    assert codes["database_unavailable"] >= 3
    assert codes["pool_exhausted"] >= 3


async def test_the_login_of_a_cancelled_request_goes_on(database_url):
    """The next request gets the connection that the cancelled one has opened."""
    async with held(database_url, connections=1) as (proxy, database):
        request = asyncio.create_task(database.run(ONE, {}))
        await until(lambda: proxy.logins_held)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

        assert (0, 1) == (database.state.open, database.state.in_use)
        proxy.let_in()
        await until_free(database)
        assert 1 == database.state.open


async def test_a_login_at_a_host_that_does_not_answer_is_given_up(database_url):
    """Its place is free again: the address may lead to another server then."""
    async with held(database_url, connections=1) as (proxy, database):
        assert ["database_unavailable"] == await outcomes(database.run(ONE, {}))
        assert 1 == database.state.in_use
        proxy.freeze()
        await until_free(database)

        proxy.thaw()
        proxy.let_in()
        assert ["ok"] == await outcomes(database.run(ONE, {}))


async def test_another_host_is_used_while_the_logins_of_the_first_are_slow(database_url):
    """The first is not tried again until its login has ended, and its connection is closed then."""
    async with proxied(database_url) as first, proxied(database_url) as second:
        hosts = [proxy.url.split("@")[1].split("/")[0] for proxy in (first, second)]
        url = first.url.replace(hosts[0], ",".join(hosts))
        first.hold_logins()
        async with connected(url, connections=1, wait_seconds=4) as database:
            assert ["ok"] == await outcomes(database.run(ONE, {}))
            assert (1, 0) == (database.state.open, database.state.in_use)

            database.reconnect()
            second.hold_logins()
            assert ["database_unavailable"] == await outcomes(database.run(ONE, {}))
            assert (1, 1) == (first.logins_held, second.logins_held)

            second.let_in()
            first.let_in()
            await until_free(database)
            assert ["ok"] == await outcomes(database.run(ONE, {}))
            assert 1 == database.state.open


async def test_the_check_of_the_database_fails_while_logins_are_late(database_url):
    """It waits for none of them, whether they began before it or with it, and it begins no second one."""
    async with held(database_url, connections=1) as (proxy, database):
        request = asyncio.create_task(outcomes(database.run(ONE, {})))
        await until(lambda: proxy.logins_held)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError):
                await asyncio.wait_for(database.check(ONE), 10)
        assert ["database_unavailable"] == await request
        assert 1 == proxy.logins_held

        proxy.let_in()
        await until_free(database)
        assert [(1,)] == await database.check(ONE)


async def test_a_check_of_another_host_begins_no_second_login_there(database_url):
    """A second check at the host waits until the first login there has ended."""
    async with proxied(database_url) as frozen, proxied(database_url) as slow:
        hosts = [proxy.url.split("@")[1].split("/")[0] for proxy in (frozen, slow)]
        url = DatabaseUrl.parse(frozen.url.replace(hosts[0], ",".join(hosts)))
        connector = Connector(
            lambda: url,
            wait_seconds=1,
            statement_seconds=1,
            connection_seconds=1800,
            through_pgbouncer=False,
            prepared_statements=True,
        )
        slow.hold_logins()
        assert [False] * 3 == [await connector.another_takes_writes(url.hosts[0]) for _ in range(3)]
        assert 1 == slow.logins_held

        slow.let_in()
        async with asyncio.timeout(20):
            while not await connector.another_takes_writes(url.hosts[0]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_the_end_of_a_worker_waits_for_no_login(database_url):
    """The login is given up, and the worker ends at once."""
    async with held(database_url, connections=1) as (_, database):
        assert ["database_unavailable"] == await outcomes(database.run(ONE, {}))
        started = perf_counter()
    assert perf_counter() - started < 5


async def test_a_password_that_is_refused_late_is_read_again(own_cluster):
    """Otherwise no login would ever succeed: none ends while a request waits."""
    await asyncio.to_thread(execute, own_cluster.url, f"CREATE ROLE {ROLE} LOGIN PASSWORD 'new'")
    rules = own_cluster.data / "pg_hba.conf"
    rules.write_text(f"local all {ROLE} scram-sha-256\n" + rules.read_text())
    await asyncio.to_thread(execute, own_cluster.url, "SELECT pg_reload_conf()")
    limits: dict[str, Any] = {"connections": 1, "wait_seconds": 1, "statement_seconds": 1, "connection_seconds": 1800}
    async with proxied(own_cluster.url) as proxy:
        passwords = ["old"]
        async with databases.connect(
            lambda: DatabaseUrl.parse(proxy.url.replace("postgres@", f"{ROLE}:{passwords[-1]}@")),
            **limits,
            through_pgbouncer=False,
            prepared_statements=True,
            observer=PoolEvents(),
        ) as database:
            passwords.append("new")
            proxy.hold_logins()
            assert ["database_unavailable"] == await outcomes(database.run(ONE, {}))
            proxy.let_in()
            await until_free(database)
            assert 0 == database.state.open
            assert ["ok"] == await outcomes(database.run(ONE, {}))


class Opened:
    """A connection that tells whether it was closed."""

    is_made = is_closed = False

    def terminate(self):
        """Close it."""
        self.is_closed = True


async def opening(opened, seconds):
    """Open this connection after so long."""
    await asyncio.sleep(seconds)
    opened.is_made = True
    return opened


@pytest.mark.parametrize("turns", range(1, 7))
async def test_a_login_that_is_cancelled_as_it_ends_closes_its_connection(turns):
    """Nobody gets it, whatever the order of both in one turn of the event loop."""
    opened = Opened()
    login = logins.Login(DatabaseHost(name="a", port=1), opening(opened, 0), seconds=9)
    for _ in range(turns):
        await asyncio.sleep(0)

    login.leave()
    login.task.cancel()
    await asyncio.wait({login.task})
    await asyncio.sleep(0.01)

    assert opened.is_made is opened.is_closed


async def test_logins_that_nobody_waits_for_any_more_close_their_connections():
    """The worker stops."""
    opened = Opened()
    login = logins.Login(DatabaseHost(name="a", port=1), opening(opened, 0.1), seconds=9)
    waiting = asyncio.create_task(logins.first_connection([login]))
    await asyncio.sleep(0.01)

    waiting.cancel()
    await asyncio.wait({waiting, login.task}, return_when=asyncio.ALL_COMPLETED)
    await asyncio.sleep(0)

    assert opened.is_closed
