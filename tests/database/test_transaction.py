from contextlib import suppress
from time import perf_counter

import pytest
from sqlalchemy import text

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
    assert_whole,
    connected,
    outcomes,
)
from tests.proxy import proxied


async def test_a_transaction_holds_together(database, sql):
    """What is written in it is seen by others at its end, and all at once."""
    async with database.transaction() as connection:
        await connection.execute(INSERT)
        await connection.execute(INSERT)
        assert 0 == await sql.fetchval("SELECT count(*) FROM items")

    assert 2 == await sql.fetchval("SELECT count(*) FROM items")


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError("no"), TimeoutError("no"), KeyError("no")])
async def test_a_transaction_that_fails_leaves_nothing(database, sql, error):
    """An error of the caller's own rolls back and comes up as it is."""
    with pytest.raises(type(error)) as raised:  # noqa: PT012  # a block fails at its end
        async with database.transaction() as connection:
            await connection.execute(INSERT)
            raise error

    assert error is raised.value
    assert 0 == await sql.fetchval("SELECT count(*) FROM items")
    await assert_whole(database)


async def test_a_transaction_leaves_its_connection_as_it_was(database_url, sql):
    """After a transaction, done or failed, its connection commits each statement by itself again."""
    async with connected(database_url, connections=1) as database:
        with suppress(ValueError):
            async with database.transaction() as connection:
                await connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
                raise ValueError
        async with database.transaction() as connection:
            assert "read committed" == (await connection.execute(text("SHOW transaction_isolation"))).scalar()

        await database.run(INSERT, {})

        assert 1 == await sql.fetchval("SELECT count(*) FROM items")
        assert "idle" == await sql.fetchval("SELECT state FROM pg_stat_activity WHERE application_name = 'items-api'")


async def test_failures_in_a_transaction_have_their_names(database_url, sql):
    """A transaction's statements fail as single ones do, and so does opening it."""
    async with connected(database_url, statement_seconds=0.3, connections=1, wait_seconds=0.2) as database:
        for statement, error in [
            ("SELECT pg_sleep(9)", StatementTimeoutError),
            ("SELECT * FROM nothing", SchemaOutdatedError),
        ]:
            with pytest.raises(error):
                async with database.transaction() as connection:
                    await connection.execute(text(statement))
        async with database.transaction():
            assert ["pool_exhausted"] == await outcomes(database.run(ONE, {}))
            with pytest.raises(PoolExhaustedError):
                async with database.transaction():
                    pytest.fail("There is one connection only.")
        with pytest.raises(DatabaseUnavailableError):  # noqa: PT012  # a block fails at its end
            async with database.transaction() as connection:
                pid = (await connection.execute(PID)).scalar()
                await sql.execute(f"SELECT pg_terminate_backend({pid})")
                await connection.execute(ONE)
        await assert_whole(database)
    async with connected("postgresql://a@127.0.0.1:1/b") as database:
        with pytest.raises(DatabaseUnavailableError):
            async with database.transaction():
                pytest.fail("There is no server.")


async def test_a_transaction_with_a_frozen_server_is_bounded(database_url):
    """A transaction, too, gives a frozen server up, and the pool is whole when it thaws."""
    async with proxied(database_url) as proxy, connected(proxy.url, statement_seconds=0.3, connections=1) as database:
        started = perf_counter()
        with pytest.raises(StatementTimeoutError):  # noqa: PT012  # a block fails at its end
            async with database.transaction() as connection:
                proxy.freeze()
                await connection.execute(ONE)
        assert perf_counter() - started < 0.3 + 2
        proxy.thaw()
        await assert_whole(database)
