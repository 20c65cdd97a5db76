import asyncio

import pytest
from sqlalchemy import Float, bindparam, delete, func, insert, select, text, union_all, update

from app import NAME
from app.database import named, slow
from app.database.lanes import WAITING_PER_CONNECTION
from app.database.statements import StatementCompiler
from app.errors import DatabaseUnavailableError, RequestError, SlowStatementTimeoutError, StatementTimeoutError
from tests.cluster import as_role
from tests.databases import (
    BACKENDS,
    INSERT,
    ONE,
    PID,
    PoolEvents,
    assert_all_connections_work,
    connected,
    outcome,
    outcomes,
    sleep,
    until_free,
)
from tests.proxy import proxied
from tests.sample import crud
from tests.sample.table import samples

SLOW_SLEEP = slow(select(func.pg_sleep(bindparam("seconds", type_=Float))))
IN_DOUBT = "The write may or may not have been applied; a POST that had an Idempotency-Key can be repeated with it."


async def test_a_statement_returns_its_rows(database):
    """Values are read by position and by name; the first statement opens the first connection."""
    assert 0 == database.state.open

    rows = await database.run(text("SELECT n, 'x' AS letter FROM generate_series(1, :n) AS n").bindparams(n=2), {})

    assert [(1, "x"), (2, "x")] == [tuple(row) for row in rows]
    assert "x" == rows[0]["letter"]
    assert (3, 1, 0, 0) == tuple(getattr(database.state, name) for name in ("size", "open", "in_use", "waiting"))


async def test_the_duration_of_a_statement_is_reported_by_its_name(database_url):
    """Also if it fails; without the wait for a connection, and by `other` without a name."""
    events = PoolEvents()
    async with connected(database_url, observer=events, statement_seconds=0.4) as database:
        await database.run(named("get_one", text("SELECT 1")), {})
        await database.run(slow(named("count_samples", text("SELECT count(*) FROM samples"))), {})
        async with database.transaction() as transaction:
            await transaction.run(text("SELECT 2"), {})
        with pytest.raises(StatementTimeoutError):
            await database.run(named("sleep", text("SELECT pg_sleep(30)")), {})

    assert ["get_one", "count_samples", "other", "sleep"] == [name for name, _ in events.statements]
    assert 0.4 <= events.statements[-1][1] < 20
    assert all(0 < seconds < 20 for _, seconds in events.statements)


async def test_a_statement_commits_by_itself(database, sql):
    """When `run` returns, other connections see the row, and no transaction is open."""
    await database.run(INSERT, {})

    assert 1 == await sql.fetchval("SELECT count(*) FROM samples")
    assert [("idle", None)] == [
        tuple(row)
        for row in await sql.fetch(f"SELECT state, xact_start FROM pg_stat_activity WHERE application_name = '{NAME}'")
    ]


async def test_a_statement_is_one_round_trip(database_url):
    """A prepared statement takes one round trip: no BEGIN, no COMMIT, no ping."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        for statement in (ONE, INSERT):
            await database.run(statement, {})
            before = proxy.round_trips
            for _ in range(5):
                await database.run(statement, {})
            assert 5 == proxy.round_trips - before


async def test_a_connection_has_its_limits(database):
    """The server knows the application's name and its timeouts; just-in-time compilation is off."""
    shown = [
        (await database.run(text(f"SHOW {name}"), {}))[0][0]
        for name in ("application_name", "statement_timeout", "idle_in_transaction_session_timeout", "jit")
    ]

    assert [NAME, "1s", "2s", "off"] == shown


async def test_nothing_outlives_a_statement_through_pgbouncer(database_url):
    """There are no startup parameters that PgBouncer refuses, and no named prepared statements."""
    unlimited = as_role(database_url, "postgres")
    async with connected(unlimited, through_pgbouncer=True, prepared_statements=False) as database:
        for _ in range(3):
            assert "0" == (await database.run(text("SHOW statement_timeout"), {}))[0][0]
            assert [] == await database.run(text("SELECT name FROM pg_prepared_statements"), {})


async def test_a_statement_past_its_time_is_cancelled(database_url):
    """It is 504 and cancelled in the server; its connection is kept."""
    async with connected(database_url, statement_seconds=0.3) as database:
        pid = (await database.run(PID, {}))[0][0]

        code, seconds = await outcome(sleep(database, 10))

        assert "statement_timeout" == code
        assert 0.25 < seconds < 0.7
        assert pid == (await database.run(PID, {}))[0][0]
        await assert_all_connections_work(database)


async def test_a_prepared_statement_without_an_answer_is_cancelled(database_url):
    """Half a second after its time, by the client, in case that the server does not cancel it."""
    async with proxied(database_url) as proxy, connected(proxy.url, statement_seconds=0.3) as database:
        await assert_all_connections_work(database)
        proxy.freeze()

        found = await asyncio.gather(*(outcome(database.run(ONE, {})) for _ in range(3)))

        assert ["statement_timeout"] * 3 == [code for code, _ in found]
        assert all(0.79 < seconds < 1.1 for _, seconds in found), found


async def test_a_prepared_statement_runs_without_the_layers_of_the_driver(database_url, monkeypatch):
    """A new version of the driver may keep its statements elsewhere, and each would then cost a third more."""
    async with connected(database_url, connections=1) as database:
        await database.run(ONE, {})
        monkeypatch.delattr("asyncpg.Connection.fetch")

        assert 1 == (await database.run(ONE, {}))[0][0]


async def test_a_wait_for_a_connection_is_bounded(database_url, sql):
    """A request that gets no connection in time is 503; the limit on connections is never exceeded."""
    events = PoolEvents()
    async with connected(database_url, connections=2, wait_seconds=0.3, observer=events) as database:
        busy = [asyncio.create_task(outcome(sleep(database, 0.8))) for _ in range(2)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(outcome(database.run(ONE, {}))) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (2, 2, 20) == (database.state.in_use, await sql.fetchval(BACKENDS), database.state.waiting)

        refused = await asyncio.gather(*waiting)

        assert {"pool_exhausted"} == {code for code, _ in refused}
        assert all(0.25 < seconds < 0.6 for _, seconds in refused)
        assert ["ok", "ok"] == [code for code, _ in await asyncio.gather(*busy)]
        assert 20 == events.timed_out
        assert [] == events.seconds
        await assert_all_connections_work(database)
        assert ["ok"] * 5 == await outcomes(*(database.run(ONE, {}) for _ in range(5)))
        assert 3 == len(events.seconds)


async def test_a_burst_of_short_statements_succeeds(database_url, sql):
    """Many more requests than connections all succeed, on no more connections."""
    async with connected(database_url, connections=2, wait_seconds=5) as database:
        at_once = 2 + 2 * WAITING_PER_CONNECTION
        assert ["ok"] * at_once == await outcomes(*(database.run(ONE, {}) for _ in range(at_once)))
        assert 2 == await sql.fetchval(BACKENDS)


async def test_a_queue_is_bounded(database_url):
    """When too many requests wait already, the next is refused at once, and the others succeed."""
    async with connected(database_url, connections=1, wait_seconds=5) as database:
        running = [asyncio.create_task(outcome(sleep(database, 0.02))) for _ in range(1 + WAITING_PER_CONNECTION)]
        await asyncio.sleep(0)

        code, seconds = await outcome(database.run(ONE, {}))

        assert "overloaded" == code
        assert seconds < 0.02
        assert {"ok"} == {code for code, _ in await asyncio.gather(*running)}


async def test_a_cancelled_request_returns_its_connection(database, sql):
    """Its statement is cancelled in the server, too, and every connection works afterwards."""
    running = [asyncio.create_task(sleep(database, 0.9)) for _ in range(10)]
    await asyncio.sleep(0.2)

    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

    await assert_all_connections_work(database)
    await asyncio.sleep(0.1)
    assert 0 == await sql.fetchval(ACTIVE)
    assert await sql.fetchval(BACKENDS) <= 3


ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"


@pytest.mark.parametrize("is_prepared", [False, True])
async def test_a_slow_statement_past_its_time_is_cancelled(database_url, sql, is_prepared):
    """A fifth of a statement's time; then it is 504 with a sentence of its own, and cancelled in the server."""
    async with connected(database_url, connections=1, statement_seconds=2.0, wait_seconds=5) as database:
        pid = (await database.run(PID, {}))[0][0]
        if is_prepared:
            await database.run(SLOW_SLEEP, {"seconds": 0})

        with pytest.raises(SlowStatementTimeoutError, match=r"may take 0\.4 s"):
            await database.run(SLOW_SLEEP, {"seconds": 10})

        # The next statement gets the connection when the server has ended the other one.
        assert pid == (await database.run(PID, {}))[0][0]
        assert 0 == await sql.fetchval(ACTIVE)
        assert pid == (await database.run(PID, {}))[0][0]
        assert database.state.open == 1


async def test_a_slow_write_past_its_time_is_in_doubt(database_url, sql):
    """It may have been committed just before it was to be cancelled."""
    write = slow(text("INSERT INTO samples (name) SELECT 'Kettle' FROM pg_sleep(9)"))
    async with connected(database_url, statement_seconds=1.0) as database:
        with pytest.raises(StatementTimeoutError, match=IN_DOUBT):
            await database.run(write, {})
        await assert_all_connections_work(database)
    assert 0 == await sql.fetchval("SELECT count(*) FROM samples")


async def test_slow_statements_run_on_a_part_of_the_connections(database_url):
    """Others do not wait for them, and a refusal says which requests are too many."""
    async with connected(database_url, connections=3, statement_seconds=5.0, wait_seconds=0.3) as database:
        slow = [asyncio.create_task(outcome(database.run(SLOW_SLEEP, {"seconds": 0.8}))) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert (1, 1, 2) == (database.state.slow.size, database.state.slow.in_use, database.state.slow.waiting)

        assert ["ok"] * 20 == await outcomes(*(database.run(ONE, {}) for _ in range(20)))

        assert (1, 2) == (database.state.slow.in_use, database.state.slow.waiting)
        assert ["ok", "slow_requests_busy", "slow_requests_busy"] == [code for code, _ in await asyncio.gather(*slow)]


async def test_cancelled_statements_do_not_exceed_the_connections(database_url, sql):
    """Requests that are cancelled faster than the server ends their statements stay within the limit."""
    async with connected(database_url, connections=2, wait_seconds=5, statement_seconds=5.0) as database:
        most = 0
        for _ in range(30):
            running = asyncio.create_task(sleep(database, 3))
            await asyncio.sleep(0.01)
            running.cancel()
            most = max(most, await sql.fetchval(BACKENDS))
        await asyncio.gather(running, return_exceptions=True)

        assert ["ok"] * 2 == await outcomes(*(database.run(ONE, {}) for _ in range(2)))
        await assert_all_connections_work(database)
        assert 0 == await sql.fetchval(ACTIVE)
        assert most <= 2


async def test_statements_built_for_each_call_are_refused(database):
    """They would fill the memory unnoticed."""
    with pytest.raises(RuntimeError):  # noqa: PT012  # a block fails at its end
        for _ in range(1000):
            await database.run(text("SELECT 1"), {})


LOST = {"cut": "database_unavailable", "silent": "statement_timeout"}


@pytest.mark.parametrize("how", LOST)
async def test_a_write_without_an_answer_is_in_doubt(database_url, sql, how):
    """A write whose connection broke or timed out after it was sent may have been applied, and the error says so."""
    async with proxied(database_url) as proxy, connected(proxy.url, connections=1, statement_seconds=0.3) as database:
        sample = await crud.create(database, {"name": "lost"})
        proxy.lose_answers(b"lost", how)
        before = await sql.fetchval("SELECT count(*) FROM samples")

        with pytest.raises(RequestError, match=IN_DOUBT) as raised:
            await crud.create(database, {"name": "lost"})

        assert LOST[how] == raised.value.code
        assert before + 1 == await sql.fetchval("SELECT count(*) FROM samples")
        proxy.keep_answers()
        await until_free(database)
        await crud.get(database, sample.id)
        proxy.freeze()
        with pytest.raises(StatementTimeoutError) as raised:
            await crud.get(database, sample.id)
        assert IN_DOUBT not in str(raised.value)


async def test_a_write_that_was_not_sent_is_not_in_doubt(database_url):
    """It could not be prepared, or the server has reported that it failed: nothing was applied."""
    async with proxied(database_url) as proxy, connected(proxy.url, connections=1, statement_seconds=0.3) as database:
        await database.run(ONE, {})
        proxy.freeze()
        with pytest.raises(StatementTimeoutError) as not_prepared:
            await crud.create(database, {"name": "Kettle"})
        proxy.thaw()
        with pytest.raises(StatementTimeoutError) as cancelled:
            await database.run(text("INSERT INTO samples (name) SELECT 'Kettle' FROM pg_sleep(9)"), {})
    async with connected("postgresql://a@127.0.0.1:1/b") as database:
        with pytest.raises(DatabaseUnavailableError) as not_connected:
            await crud.create(database, {"name": "Kettle"})

    for raised in (not_prepared, cancelled, not_connected):
        assert IN_DOUBT not in str(raised.value)


@pytest.mark.parametrize(
    ("statement", "may_write"),
    [
        (select(samples.c.id), False),
        (union_all(select(samples.c.id), select(samples.c.id)), False),
        (insert(samples), True),
        (update(samples).values(name="Pan"), True),
        (delete(samples), True),
        (select(delete(samples).returning(samples.c.id).cte("deleted").c.id), True),
        (select(select(insert(samples).returning(samples.c.id).cte("made").c.id).subquery("ids").c.id), True),
        (text("SELECT 1"), True),
    ],
)
def test_a_select_alone_does_not_write(statement, may_write):
    """Whether a statement may write is known by its type; a text may write."""
    assert may_write == StatementCompiler().compile(statement).may_write
