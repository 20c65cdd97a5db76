import asyncio
from unittest.mock import Mock

import structlog

from app.connection_leases import Leases
from app.database.sharing import sharing
from tests.database.test_pool import acquire, make_pool, release


async def test_the_pool_follows_its_leases():
    """A failure is logged, and the next look succeeds. The leases are given back only if no session is left."""
    pool, leases = make_pool(size=0), Mock(spec=Leases)
    leases.adjust.side_effect = [0, OSError("no locks available"), *[1] * 1_000]
    with structlog.testing.capture_logs() as lines:
        async with sharing(pool, leases):
            connection = await asyncio.wait_for(acquire(pool), 5)
    assert ["connection_leases_failed"] == [line["event"] for line in lines]
    leases.give_back.assert_not_called()

    async with sharing(pool, leases):
        release(pool, connection)
        await pool.close()
    leases.give_back.assert_called_once()
