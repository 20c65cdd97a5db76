"""Connecting by the parts of a URL: hosts, times and what the URL sets."""

from time import perf_counter

import pytest

from app.database.connecting import connect
from app.database_url import DatabaseUrl
from tests.proxy import proxied


async def encrypted(url: str, host_seconds: float = 5) -> bool:
    """Whether a connection by this URL is encrypted."""
    connection = await connect(DatabaseUrl.parse(url, {}), host_seconds=host_seconds, server_settings={})
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


async def test_connect_timeout_takes_precedence(own_cluster):
    """A URL that says how long connecting may take is obeyed."""
    async with proxied(own_cluster.url) as proxy:
        proxy.freeze()
        started = perf_counter()
        with pytest.raises(TimeoutError):
            await encrypted(f"{proxy.url}&connect_timeout=1", host_seconds=30)

    assert 1 <= perf_counter() - started < 4
