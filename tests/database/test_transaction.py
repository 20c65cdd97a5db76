import asyncio
from contextlib import suppress
from time import perf_counter

import pytest
from sqlalchemy import text

from app import NAME
from app.errors import (
    DatabaseUnavailableError,
    PoolExhaustedError,
    SchemaOutdatedError,
    StatementTimeoutError,
)
from tests.databases import (
    INSERT,
    ONE,
    PID,
    assert_all_connections_work,
    connected,
    outcomes,
    until_free,
)
from tests.proxy import proxied
from tests.sample import crud

COUNT = "SELECT count(*) FROM samples"
IN_DOUBT = "The write may or may not have been applied; a POST that had an Idempotency-Key can be repeated with it."


async def test_a_transaction_commits_at_its_end(database, sql):
    """Others see nothing of it before its end, and all of it afterwards."""
    async with database.transaction() as transaction:
        await transaction.run(INSERT, {})
        await transaction.run(INSERT, {})
        assert 0 == await sql.fetchval(COUNT)

    assert 2 == await sql.fetchval(COUNT)


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError("no"), TimeoutError("no"), KeyError("no")])
async def test_a_transaction_that_raises_is_rolled_back(database, sql, error):
    """The caller's own error is raised as it is, and nothing is stored."""
    with pytest.raises(type(error)) as raised:  # noqa: PT012  # a block fails at its end
        async with database.transaction() as transaction:
            await transaction.run(INSERT, {})
            raise error

    assert error is raised.value
    assert 0 == await sql.fetchval(COUNT)
    await assert_all_connections_work(database)


async def test_crud_works_in_a_transaction(database, sql):
    """Every operation runs in it, sees what the others have written, and is committed with them."""
    async with database.transaction() as transaction:
        kettle = await crud.create(transaction, {"name": "Kettle"})
        pan, _ = await crud.create_once(transaction, {"name": "Pan"}, key="k", fingerprint=b"f")
        kettle = await crud.change(transaction, kettle.id, {"amount": 2}, versions=[kettle.updated_at])
        assert kettle == await crud.get(transaction, kettle.id)
        assert [kettle, pan] == (await crud.page(transaction, limit=5, offset=0)).samples
        assert pan == await crud.delete(transaction, pan.id)
        assert 0 == await sql.fetchval(COUNT)

    assert [("Kettle", 2)] == [tuple(row) for row in await sql.fetch("SELECT name, amount FROM samples")]


async def test_crud_is_rolled_back_with_its_transaction(database, sql):
    """What crud has written before an error is gone, and its own errors roll back, too."""
    sample = await crud.create(database, {"name": "Kettle"})

    with pytest.raises(crud.SampleNotFoundError):  # noqa: PT012  # a block fails at its end
        async with database.transaction() as transaction:
            await crud.change(transaction, sample.id, {"name": "Pan"})
            await crud.create(transaction, {"name": "Pot"})
            await crud.delete(transaction, 99)

    assert sample == await crud.get(database, sample.id)
    assert 1 == await sql.fetchval(COUNT)
    await assert_all_connections_work(database)


async def test_a_cancelled_transaction_is_rolled_back(database, sql):
    """Cancelled while a statement runs, it stores nothing, and its connection works afterwards."""

    async def write_and_wait():
        async with database.transaction() as transaction:
            await transaction.run(INSERT, {})
            await transaction.run(text("SELECT pg_sleep(0.9)"), {})

    running = asyncio.create_task(write_and_wait())
    await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert running.cancelled()
    assert 0 == await sql.fetchval(COUNT)
    assert "idle" == await sql.fetchval(f"SELECT state FROM pg_stat_activity WHERE application_name = '{NAME}'")
    await assert_all_connections_work(database)


@pytest.mark.parametrize("command", ["BEGIN", "COMMIT", "ROLLBACK"])
async def test_a_connection_with_an_unknown_transaction_state_is_closed(database_url, sql, command):
    """A transaction that is cancelled while it begins or ends leaves no open transaction to the next request."""
    async with proxied(database_url) as proxy, connected(proxy.url, connections=1) as database:
        await database.run(ONE, {})
        reached = asyncio.Event()

        async def transact():
            if command == "BEGIN":
                proxy.freeze()
                reached.set()
            with suppress(ValueError):
                async with database.transaction() as transaction:
                    await transaction.run(INSERT, {})
                    proxy.freeze()
                    reached.set()
                    if command == "ROLLBACK":
                        raise ValueError

        running = asyncio.create_task(transact())
        await reached.wait()
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until_free(database)
        proxy.thaw()

        assert running.cancelled()
        await asyncio.sleep(0.1)
        stored = await sql.fetchval(COUNT)
        await database.run(INSERT, {})
        assert stored + 1 == await sql.fetchval(COUNT)


async def test_an_error_caught_inside_a_transaction_is_not_taken_for_a_commit(database, sql):
    """The server rolls such a transaction back at COMMIT, and that is raised."""
    with pytest.raises(RuntimeError, match="rolled back"):  # noqa: PT012  # a block fails at its end
        async with database.transaction() as transaction:
            await transaction.run(INSERT, {})
            with suppress(SchemaOutdatedError):
                await transaction.run(text("SELECT * FROM nothing"), {})

    assert 0 == await sql.fetchval(COUNT)
    await assert_all_connections_work(database)


async def test_a_stale_plan_in_a_transaction_is_unavailable(database_url, sql):
    """Its statement cannot be retried alone: the whole transaction is 503, and succeeds when it is repeated."""
    everything = text("SELECT * FROM samples")
    async with connected(database_url, connections=1) as database:
        await database.run(everything, {})
        await sql.execute("ALTER TABLE samples ADD COLUMN one int")
        with pytest.raises(DatabaseUnavailableError) as raised:  # noqa: PT012  # a block fails at its end
            async with database.transaction() as transaction:
                await transaction.run(INSERT, {})
                await transaction.run(everything, {})
        assert IN_DOUBT not in str(raised.value)
        assert 0 == await sql.fetchval(COUNT)

        async with database.transaction() as transaction:
            await transaction.run(INSERT, {})
            assert "one" in (await transaction.run(everything, {}))[0]


async def test_a_transaction_leaves_its_connection_as_it_was(database_url, sql):
    """After a transaction, committed or not, its connection commits each statement by itself again."""
    async with connected(database_url, connections=1) as database:
        with suppress(ValueError):
            async with database.transaction() as transaction:
                await transaction.run(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), {})
                raise ValueError
        async with database.transaction() as transaction:
            assert "read committed" == (await transaction.run(text("SHOW transaction_isolation"), {}))[0][0]

        await database.run(INSERT, {})

        assert 1 == await sql.fetchval(COUNT)
        assert "idle" == await sql.fetchval(f"SELECT state FROM pg_stat_activity WHERE application_name = '{NAME}'")


async def test_failures_in_a_transaction_are_named(database_url, sql):
    """A statement in a transaction fails as a single one does, and so does opening the transaction."""
    async with connected(database_url, statement_seconds=0.3, connections=1, wait_seconds=0.2) as database:
        for statement, error in [
            ("SELECT pg_sleep(9)", StatementTimeoutError),
            ("SELECT * FROM nothing", SchemaOutdatedError),
        ]:
            with pytest.raises(error):
                async with database.transaction() as transaction:
                    await transaction.run(text(statement), {})
        async with database.transaction():
            assert ["pool_exhausted"] == await outcomes(database.run(ONE, {}))
            with pytest.raises(PoolExhaustedError):
                async with database.transaction():
                    pytest.fail("There is only one connection.")
        with pytest.raises(DatabaseUnavailableError):  # noqa: PT012  # a block fails at its end
            async with database.transaction() as transaction:
                pid = (await transaction.run(PID, {}))[0][0]
                await sql.execute(f"SELECT pg_terminate_backend({pid})")
                await transaction.run(ONE, {})
        await assert_all_connections_work(database)
    async with connected("postgresql://a@127.0.0.1:1/b") as database:
        with pytest.raises(DatabaseUnavailableError):
            async with database.transaction():
                pytest.fail("There is no server.")


async def test_a_commit_without_an_answer_is_in_doubt(database_url, sql):
    """A lost statement of a transaction was rolled back with it; only a lost COMMIT may have been applied."""
    async with proxied(database_url) as proxy, connected(proxy.url, connections=1) as database:
        proxy.lose_answers(b"COMMIT\0", "cut")
        with pytest.raises(DatabaseUnavailableError, match=IN_DOUBT):
            async with database.transaction() as transaction:
                await transaction.run(INSERT, {})
        assert 1 == await sql.fetchval(COUNT)
        proxy.keep_answers()

        with pytest.raises(DatabaseUnavailableError) as raised:  # noqa: PT012  # a block fails at its end
            async with database.transaction() as transaction:
                await transaction.run(INSERT, {})
                proxy.cut()
                await transaction.run(INSERT, {})
        assert IN_DOUBT not in str(raised.value)
        assert 1 == await sql.fetchval(COUNT)


async def test_a_transaction_with_a_frozen_server_ends_in_time(database_url):
    """The statement times out, and the pool works again when the server answers."""
    async with proxied(database_url) as proxy, connected(proxy.url, statement_seconds=0.3, connections=1) as database:
        started = perf_counter()
        with pytest.raises(StatementTimeoutError):  # noqa: PT012  # a block fails at its end
            async with database.transaction() as transaction:
                proxy.freeze()
                await transaction.run(ONE, {})
        assert perf_counter() - started < 0.3 + 2
        proxy.thaw()
        await assert_all_connections_work(database)
