import asyncio

import pytest
from sqlalchemy import text

from app.database.admission import WAITING_PER_CONNECTION
from tests.cluster import as_role
from tests.databases import (
    BACKENDS,
    INSERT,
    ONE,
    PID,
    Waits,
    assert_whole,
    connected,
    outcome,
    outcomes,
    sleep,
)
from tests.proxy import proxied


async def test_a_statement_gives_its_rows(database):
    """Rows come by position and by name; the first statement opens the first connection."""
    assert 0 == database.state.open

    rows = await database.run(text("SELECT n, 'x' AS letter FROM generate_series(1, :n) AS n").bindparams(n=2), {})

    assert [(1, "x"), (2, "x")] == [tuple(row) for row in rows]
    assert "x" == rows[0]["letter"]
    assert (3, 1, 0, 0) == tuple(getattr(database.state, name) for name in ("size", "open", "in_use", "waiting"))


async def test_a_statement_commits_by_itself(database, sql):
    """When `run` returns, everybody sees the row, and no transaction is left open."""
    await database.run(INSERT, {})

    assert 1 == await sql.fetchval("SELECT count(*) FROM items")
    assert [("idle", None)] == [
        tuple(row)
        for row in await sql.fetch(
            "SELECT state, xact_start FROM pg_stat_activity WHERE application_name = 'items-api'"
        )
    ]


async def test_a_statement_is_one_round_trip(database_url):
    """Once it is known to the server, a statement takes one round trip: no BEGIN, no COMMIT, no ping."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        for statement in (ONE, INSERT):
            await database.run(statement, {})
            before = proxy.round_trips
            for _ in range(5):
                await database.run(statement, {})
            assert 5 == proxy.round_trips - before


async def test_a_connection_is_opened_with_its_limits(database):
    """The server knows who connects and when to stop a statement; just-in-time compilation is off."""
    shown = [
        (await database.run(text(f"SHOW {name}"), {}))[0][0]
        for name in ("application_name", "statement_timeout", "idle_in_transaction_session_timeout", "jit")
    ]

    assert ["items-api", "1s", "2s", "off"] == shown


async def test_through_pgbouncer_nothing_outlives_a_statement(database_url):
    """No startup parameters that PgBouncer refuses, and no prepared statement with a name."""
    unlimited = as_role(database_url, "postgres")
    async with connected(unlimited, through_pgbouncer=True, prepared_statements=False) as database:
        for _ in range(3):
            assert "0" == (await database.run(text("SHOW statement_timeout"), {}))[0][0]
            assert [] == await database.run(text("SELECT name FROM pg_prepared_statements"), {})


async def test_a_statement_has_its_time(database_url):
    """A statement past its time is 504 and stopped in the server; its connection is kept."""
    async with connected(database_url, statement_seconds=0.3) as database:
        pid = (await database.run(PID, {}))[0][0]

        code, seconds = await outcome(sleep(database, 10))

        assert "statement_timeout" == code
        assert 0.25 < seconds < 0.7
        assert pid == (await database.run(PID, {}))[0][0]
        await assert_whole(database)


async def test_a_wait_for_a_connection_is_bounded(database_url, sql):
    """Who gets no connection in time is 503; the others are served in order; there are never more connections."""
    waits = Waits()
    async with connected(database_url, connections=2, wait_seconds=0.3, observer=waits) as database:
        busy = [asyncio.create_task(outcome(sleep(database, 0.8))) for _ in range(2)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(outcome(database.run(ONE, {}))) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (2, 2, 20) == (database.state.in_use, await sql.fetchval(BACKENDS), database.state.waiting)

        refused = await asyncio.gather(*waiting)

        assert {"pool_exhausted"} == {code for code, _ in refused}
        assert all(0.25 < seconds < 0.6 for _, seconds in refused)
        assert ["ok", "ok"] == [code for code, _ in await asyncio.gather(*busy)]
        assert 20 == waits.timed_out
        assert [] == waits.seconds
        await assert_whole(database)
        assert ["ok"] * 5 == await outcomes(*(database.run(ONE, {}) for _ in range(5)))
        assert 3 == len(waits.seconds)


async def test_a_burst_is_served_in_turn(database_url, sql):
    """Many more requests than connections all pass while each is short."""
    async with connected(database_url, connections=2, wait_seconds=5) as database:
        at_once = 2 + 2 * WAITING_PER_CONNECTION
        assert ["ok"] * at_once == await outcomes(*(database.run(ONE, {}) for _ in range(at_once)))
        assert 2 == await sql.fetchval(BACKENDS)


async def test_a_queue_is_bounded(database_url):
    """Where too many wait already, the next is refused at once, and the others are served all the same."""
    async with connected(database_url, connections=1, wait_seconds=5) as database:
        asked = [asyncio.create_task(outcome(sleep(database, 0.02))) for _ in range(1 + WAITING_PER_CONNECTION)]
        await asyncio.sleep(0)

        code, seconds = await outcome(database.run(ONE, {}))

        assert "overloaded" == code
        assert seconds < 0.02
        assert {"ok"} == {code for code, _ in await asyncio.gather(*asked)}


async def test_a_request_that_is_given_up_gives_its_connection_back(database, sql):
    """A statement that is cancelled is stopped in the server, too, and leaves the pool whole."""
    asked = [asyncio.create_task(sleep(database, 0.9)) for _ in range(10)]
    await asyncio.sleep(0.2)

    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)

    await assert_whole(database)
    await asyncio.sleep(0.1)
    assert 0 == await sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
    )
    assert await sql.fetchval(BACKENDS) <= 3


async def test_statements_are_made_once(database):
    """Statements made anew for each call would fill the memory: that is refused, rather than unnoticed."""
    with pytest.raises(RuntimeError):  # noqa: PT012  # a block fails at its end
        for _ in range(1000):
            await database.run(text("SELECT 1"), {})
