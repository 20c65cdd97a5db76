"""The tests hold locks on one connection, wait for them on another one, and read the blockers on a third."""

import asyncio

import asyncpg
import pytest

from migrations.blockers import read_blockers
from tests.cluster import throw_away_cluster

INDEX = "CREATE INDEX CONCURRENTLY ix_things_id ON things (id)"
COLUMN = "ALTER TABLE things ADD COLUMN colour text"


@pytest.fixture(scope="module")
def two_phase_url():
    """The URL of a server that allows prepared transactions, with a table."""
    with throw_away_cluster({"max_prepared_transactions": "2"}) as running:
        yield running.url


@pytest.fixture
async def connections(two_phase_url):
    """Three connections to it: one that blocks, one that waits, one that reads. There is an empty table."""
    opened = [await asyncpg.connect(two_phase_url) for _ in range(3)]
    await opened[0].execute("DROP TABLE IF EXISTS things; CREATE TABLE things (id int)")
    yield opened
    for connection in opened:
        connection.terminate()


async def blockers_of(statement, waiting, reading):
    """What blocks this statement, and the task that runs it."""
    task = asyncio.create_task(waiting.execute(statement))
    async with asyncio.timeout(30):
        while not (found := await read_blockers(reading, waiting.get_server_pid())):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return [str(blocker) for blocker in found], task


@pytest.mark.parametrize("statement", [COLUMN, INDEX])
async def test_a_prepared_transaction_is_named(connections, statement):
    """A prepared transaction has no process: its identifier is named, and how to end it."""
    blocking, waiting, reading = connections
    await blocking.execute("BEGIN; INSERT INTO things VALUES (1); PREPARE TRANSACTION 'order 7'")
    await blocking.execute("BEGIN; CREATE TABLE IF NOT EXISTS unrelated (); PREPARE TRANSACTION 'unrelated'")

    described, task = await blockers_of(statement, waiting, reading)
    await blocking.execute("COMMIT PREPARED 'order 7'")
    await blocking.execute("ROLLBACK PREPARED 'unrelated'")
    await task

    assert 1 == len(described)
    assert described[0].startswith("prepared transaction 'order 7' of user postgres, 0 s old")
    assert "ROLLBACK PREPARED" in described[0]


async def test_the_age_of_a_snapshot_is_named(connections):
    """A transaction that holds a snapshot is described with the number of transactions since."""
    blocking, waiting, reading = connections
    await blocking.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM things")
    for _ in range(3):
        await reading.execute("INSERT INTO things VALUES (1)")

    described, task = await blockers_of(INDEX, waiting, reading)
    await blocking.execute("COMMIT")
    await task

    assert 1 == len(described)
    assert f"process {blocking.get_server_pid()} of user postgres" in described[0]
    assert "snapshot " in described[0]
    assert int(described[0].partition("snapshot ")[2].split()[0]) >= 3


async def test_who_reads_is_no_blocker(connections):
    """Its own snapshot may be what the process waits for."""
    watching, waiting, reading = connections
    await reading.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM things")
    described, task = await blockers_of(INDEX, waiting, watching)

    assert [f"process {reading.get_server_pid()} "] == [text[: text.index("of user")] for text in described]
    assert [] == await read_blockers(reading, waiting.get_server_pid())
    await reading.execute("COMMIT")
    await task


async def test_a_process_that_waits_for_nothing_has_no_blockers(connections):
    """Nothing is named where nothing is waited for."""
    assert [] == await read_blockers(connections[2], connections[1].get_server_pid())
