"""The monitor connects through a proxy that cuts its connections."""

import asyncio

from app.database_url import DatabaseUrl
from migrations.monitor import Monitor
from tests.proxy import proxied


async def test_a_monitor_whose_new_connection_breaks_connects_again(empty_database_url, lines):
    """It says so once, and tries again until it has a connection."""
    async with proxied(empty_database_url) as proxy, asyncio.timeout(60):
        proxy.lose_answers(b"tcp_keepalives_idle", "cut")
        monitor = Monitor(DatabaseUrl.parse(proxy.url), 0, lock_seconds=0.2)
        task = asyncio.create_task(monitor.run())
        while proxy.answers_lost < 2:  # the proxy sets no event
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        proxy.keep_answers()
        before = proxy.round_trips
        while proxy.round_trips < before + 10:  # it polls
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])

    logged = [line for line in lines() if line["event"] == "migration_unmonitored"]
    assert 1 == len(logged)
    assert "connection to PostgreSQL failed" in logged[0]["cause"]
