import asyncio
from collections import Counter

import pytest
from sqlalchemy import literal, select

from tests.databases import INSERT, connected, outcome
from tests.replication import wait_for_standby

READ = select(literal(1))


async def repeated(database, statement, *, times, pause):
    """The outcomes of a statement that is run so often, with these seconds between the beginnings."""
    tasks = []
    for _ in range(times):
        tasks.append(asyncio.create_task(outcome(database.run(statement, {}))))
        await asyncio.sleep(pause)
    return Counter(result for result, _ in await asyncio.gather(*tasks))


@pytest.mark.slow
async def test_reads_succeed_while_commits_wait_for_a_standby(own_cluster):
    """After the first commits have timed out, others leave connections for reads. Then all writes succeed again."""
    limits = {"connections": 6, "wait_seconds": 0.5, "statement_seconds": 2.0}
    async with connected(own_cluster.url, **limits) as database:
        await asyncio.to_thread(wait_for_standby, own_cluster, "gone")
        writing = asyncio.create_task(repeated(database, INSERT, times=400, pause=0.02))
        await asyncio.sleep(4)
        assert {"ok": 150} == await repeated(database, READ, times=150, pause=0.02)
        await asyncio.to_thread(wait_for_standby, own_cluster, "")
        writes = await writing
        assert {"ok": 50} == await repeated(database, INSERT, times=50, pause=0.005)

    assert set(writes) <= {"ok", "statement_timeout", "pool_exhausted", "overloaded"}
    assert writes["statement_timeout"] > 6
