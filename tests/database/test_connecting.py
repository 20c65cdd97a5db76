"""Connecting by the parts of a URL: hosts, times and what the URL sets."""

from time import perf_counter

import pytest

from app.database.connecting import HostOrder, connect
from app.database_url import DatabaseUrl
from tests.proxy import proxied


async def encrypted(url: str, host_seconds: float = 5) -> bool:
    """Whether a connection by this URL is encrypted."""
    connection, _ = await connect(
        DatabaseUrl.parse(url, {}), HostOrder(), host_seconds=host_seconds, server_settings={}
    )
    try:
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await connection.close()


async def test_a_server_without_tls_is_reached_by_prefer_only(own_cluster):
    """The proxy's server answers that it has no TLS."""
    async with proxied(own_cluster.url) as proxy:
        url = proxy.url.replace("sslmode=disable", "sslmode=")
        assert not await encrypted(f"{url}prefer")
        with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
            await encrypted(f"{url}require")


async def test_each_host_has_its_own_time(own_cluster):
    """A frozen host takes the time for one host, and the next one is reached."""
    async with proxied(own_cluster.url) as frozen, proxied(own_cluster.url) as alive:
        frozen.freeze()
        first, second = (DatabaseUrl.parse(proxy.url).hosts[0].port for proxy in (frozen, alive))
        started = perf_counter()

        await encrypted(f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres", host_seconds=0.3)

    assert 0.3 <= perf_counter() - started < 2


def test_the_host_that_failed_last_is_tried_last():
    """Until it works again. `prefer-standby` still looks for standbys first."""
    url, order = DatabaseUrl.parse("postgresql://u@a,b,c/d?target_session_attrs=any", {}), HostOrder()
    a, b, _ = url.hosts

    def names(url: DatabaseUrl = url) -> str:
        return "".join(host.name for host, _ in order.attempts(url))

    assert "abc" == names()
    order.failed(a)
    assert "bca" == names()
    order.failed(b)
    assert "cab" == names()
    order.worked(a)
    assert "acb" == names()
    preferring = DatabaseUrl.parse("postgresql://u@a,b/d?target_session_attrs=prefer-standby", {})
    assert "abab" == names(preferring)
    assert ["standby", "standby", "any", "any"] == [kind for _, kind in order.attempts(preferring)]


async def test_a_frozen_host_costs_one_connection_its_time(own_cluster):
    """The next connection tries it last."""
    async with proxied(own_cluster.url) as frozen, proxied(own_cluster.url) as alive:
        frozen.freeze()
        first, second = (DatabaseUrl.parse(proxy.url).hosts[0].port for proxy in (frozen, alive))
        url = DatabaseUrl.parse(f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres", {})
        order = HostOrder()
        for seconds in (2, 20):
            started = perf_counter()
            connection, host = await connect(url, order, host_seconds=seconds, server_settings={})
            assert url.hosts[1] == host
            await connection.close()

    assert perf_counter() - started < 15


async def test_each_host_that_fails_is_named_by_its_number(own_cluster):
    """The message says of each host what has happened."""
    async with proxied(own_cluster.url) as frozen:
        frozen.freeze()
        port = DatabaseUrl.parse(frozen.url).hosts[0].port
        url = DatabaseUrl.parse(f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:1/postgres", {})
        with pytest.raises(ConnectionError, match=r"^host 1: no answer in time; host 2: .*[Cc]onnect") as raised:
            await connect(url, HostOrder(), host_seconds=0.3, server_settings={})

    assert ConnectionError is type(raised.value)


@pytest.mark.parametrize(("connect_timeout", "host_seconds"), [(1, 30), (30, 1)])
async def test_connect_timeout_can_only_shorten_the_time(own_cluster, connect_timeout, host_seconds):
    """A request waits for a new connection no longer than for one of the pool."""
    async with proxied(own_cluster.url) as proxy:
        proxy.freeze()
        started = perf_counter()
        with pytest.raises(TimeoutError):
            await encrypted(f"{proxy.url}&connect_timeout={connect_timeout}", host_seconds=host_seconds)

    assert 1 <= perf_counter() - started < 4
