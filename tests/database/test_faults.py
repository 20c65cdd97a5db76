import asyncio
import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select, literal_column, select, text

from app import NAME
from app.database.pool import REPLACE_SECONDS
from app.errors import (
    DatabaseUnavailableError,
    RequestError,
    SchemaOutdatedError,
    root_cause,
)
from tests.cluster import execute
from tests.databases import (
    BACKENDS,
    COUNT,
    INSERT,
    ONE,
    PID,
    assert_all_connections_work,
    connected,
    open_all,
    outcome,
    outcomes,
    sleep,
    until_free,
)
from tests.proxy import proxied
from tests.replication import wait_for_standby


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a:hunter2@127.0.0.1:1/b",
        "postgresql://a:hunter2@nowhere.invalid/b",
        "postgresql:///b?host=/nowhere",
    ],
)
async def test_a_missing_server_is_unavailable(url):
    """A refused connection, an unknown host and a missing socket are 503, without delay, each time."""
    async with connected(url) as database:
        for _ in range(3):
            code, seconds = await outcome(database.run(ONE, {}))
            assert "database_unavailable" == code
            assert seconds < 1.8
        assert (0, 0) == (database.state.open, database.state.in_use)


async def test_a_library_that_quotes_the_url_is_not_logged():
    """Python cannot encode this host and quotes it; the cause that is logged has only the kind of the error."""
    host = "hunter2" * 10
    async with connected(f"postgresql://a@{host}.invalid/b") as database:
        with pytest.raises(DatabaseUnavailableError) as raised:
            await database.run(ONE, {})

    assert "hunter2" not in f"{raised.value} {root_cause(raised.value)} {raised.value.__cause__}"
    assert re.search(r"Unicode\w*Error", str(root_cause(raised.value)))


async def test_the_address_of_a_server_that_is_away_is_not_logged():
    """The cause names what happened; the address is part of the URL."""
    async with connected("postgresql://a@127.0.0.1:1,[::1]:1/b") as database:
        with pytest.raises(DatabaseUnavailableError) as raised:
            await database.run(ONE, {})

    cause = str(root_cause(raised.value))
    assert re.search("Connect call failed|refused", cause)
    assert not re.search(r"127\.0\.0\.1|::1|, 1\)", cause)


async def test_a_server_that_sends_the_password_back_does_not_get_it_logged(monkeypatch):
    """A server that pretends to be PostgreSQL can be told a password in clear text."""

    async def refuse(*_arguments, **_options):
        raise asyncpg.InternalServerError("you sent hunter2")

    monkeypatch.setattr("app.database.connection.connect", refuse)
    async with connected("postgresql://a:hunter2@127.0.0.1:1/b") as database:
        with pytest.raises(DatabaseUnavailableError) as raised:
            await database.run(ONE, {})

    assert "InternalServerError: you sent …" == root_cause(raised.value)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (asyncpg.ProtocolViolationError("no such database: tenantdb"), "no such database: …"),
        (asyncpg.InvalidAuthorizationSpecificationError("Rolle »tenantuser« fehlt"), "Rolle »…« fehlt"),
        (asyncpg.CannotConnectNowError("tenantuser@db.tenant.example:6543 waits"), "…@… waits"),
        (OSError("no way to ('10.0.0.1', 6543) as db.tenant.example"), "no way to as …"),
    ],
)
async def test_no_part_of_the_url_is_logged(monkeypatch, error, cause):
    """No matter who repeats it, and how it is quoted."""

    async def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setattr("app.database.connection.connect", refuse)
    async with connected("postgresql://tenantuser:hunter2@db.tenant.example:6543/tenantdb") as database:
        with pytest.raises(DatabaseUnavailableError) as raised:
            await database.run(ONE, {})

    assert str(root_cause(raised.value)).endswith(f": {cause}")


async def test_a_server_that_refuses_the_login_is_unavailable(own_cluster):
    """A wrong password, an unknown role or database and a full role are 503, until that changes."""
    await asyncio.to_thread(execute, own_cluster.url, "CREATE ROLE guarded LOGIN PASSWORD 'right'")
    await asyncio.to_thread(execute, own_cluster.url, "CREATE ROLE full LOGIN CONNECTION LIMIT 0")
    rules = own_cluster.data / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
    await asyncio.to_thread(execute, own_cluster.url, "SELECT pg_reload_conf()")
    wrong = [
        own_cluster.url.replace("postgres@", "guarded:hunter2@"),
        own_cluster.url.replace("postgres@", "unknown_tenant@"),
        own_cluster.url.replace("postgres@", "full@"),
        own_cluster.url.replace("/postgres?", "/unknown_tenant?"),
    ]

    for url in wrong:
        async with connected(url) as database:
            with pytest.raises(DatabaseUnavailableError) as raised:
                await database.run(ONE, {})
            shown = f"{raised.value}{raised.value.__cause__}{root_cause(raised.value)}"
            assert [] == [part for part in ("hunter2", "guarded", "unknown_tenant") if part in shown]
            assert re.search(r"password|does not exist|too many", shown)
    async with connected(wrong[0]) as database:
        assert ["database_unavailable"] == await outcomes(database.run(ONE, {}))
        await asyncio.to_thread(execute, own_cluster.url, "ALTER ROLE guarded PASSWORD 'hunter2'")
        assert ["ok"] == await outcomes(database.run(ONE, {}))


async def test_a_statement_whose_backend_is_killed_is_unavailable(database, sql):
    """The statement is 503; the next ones succeed."""
    pid = (await database.run(PID, {}))[0][0]
    running = asyncio.create_task(outcome(sleep(database, 0.8)))
    await asyncio.sleep(0.1)

    await sql.execute(f"SELECT pg_terminate_backend({pid})")

    assert "database_unavailable" == (await running)[0]
    await assert_all_connections_work(database)


async def test_no_request_fails_after_idle_backends_were_killed(database, sql):
    """Closed connections are found without a round trip and replaced."""
    await open_all(database)

    await sql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'")
    await asyncio.sleep(0.1)

    assert ["ok"] * 30 == await outcomes(*(database.run(ONE, {}) for _ in range(30)))
    await assert_all_connections_work(database)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restarted_server_is_used_again(own_cluster, mode):
    """Requests are 503 while the server is down, and succeed as soon as it is up again."""
    async with connected(own_cluster.url) as database:
        await open_all(database)
        seen = []

        async def keep_running():
            while True:
                seen.append((await outcome(sleep(database, 0.01)))[0])
                await asyncio.sleep(0.01)

        clients = [asyncio.create_task(keep_running()) for _ in range(3)]
        await asyncio.to_thread(own_cluster.stop, mode)
        during = await outcomes(*(database.run(ONE, {}) for _ in range(5)))
        await asyncio.to_thread(own_cluster.start)
        await asyncio.sleep(0.1)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

        assert ["database_unavailable"] * 5 == during
        assert {"ok", "database_unavailable"} == set(seen)
        await assert_all_connections_work(database)


async def test_connections_to_a_read_only_server_are_replaced(database_url, sql):
    """Writes to a read-only server are 503 and reads succeed; writes succeed again on new connections."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with connected(database_url) as database:
        await open_all(database)
        assert ["database_unavailable"] * 3 == await outcomes(*(database.run(INSERT, {}) for _ in range(3)))
        assert ["ok"] == await outcomes(database.run(COUNT, {}))

        await sql.execute("RESET default_transaction_read_only")
        await sql.execute(
            f'SET default_transaction_read_only = off; ALTER DATABASE "{name}" RESET default_transaction_read_only'
        )

        await asyncio.sleep(REPLACE_SECONDS)
        await outcomes(database.run(INSERT, {}))  # It may use an older connection; then all are replaced.
        assert ["ok"] * 9 == await outcomes(*(database.run(INSERT, {}) for _ in range(9)))
        await assert_all_connections_work(database)


async def test_every_write_to_a_read_only_server_is_unavailable(database_url, sql, monkeypatch):
    """Every write is 503, however many fail while connections are being replaced."""
    monkeypatch.setattr("app.database.pool.REPLACE_SECONDS", 0)
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with connected(database_url, connections=4) as database:
        for _ in range(5):
            assert {"database_unavailable"} == set(await outcomes(*(database.run(INSERT, {}) for _ in range(20))))
        await assert_all_connections_work(database)


async def test_no_request_fails_when_a_plan_becomes_stale(database, sql):
    """A migration changes the columns that a running service reads, and no request fails."""
    everything = text("SELECT *, pg_sleep(0.01) FROM samples")
    await database.run(INSERT, {})
    for column in ("one", "two"):
        assert ["ok"] * 9 == await outcomes(*(database.run(everything, {}) for _ in range(9)))
        await sql.execute(f"ALTER TABLE samples ADD COLUMN {column} int")
    assert ["ok"] * 9 == await outcomes(*(database.run(everything, {}) for _ in range(9)))

    assert "two" in (await database.run(everything, {}))[0]


async def test_no_read_fails_when_a_type_changes(database_url, sql):
    """The driver finds it when the rows arrive, knows the type anew, and the statement runs again."""
    await sql.execute("CREATE TYPE pair AS (x int, y int)")
    pair: Select[Any] = select(
        literal_column("""jsonb_populate_record(CAST(NULL AS pair), '{"x": 1, "y": 2, "z": 3}')""")
    )
    async with connected(database_url, connections=1) as database:
        assert (1, 2) == (await database.run(pair, {}))[0][0]
        await sql.execute("ALTER TYPE pair ADD ATTRIBUTE z int")

        assert (1, 2, 3) == (await database.run(pair, {}))[0][0]
        assert 1 == database.state.open


@pytest.mark.parametrize("statement", ["SELECT * FROM nothing", "SELECT nothing FROM samples", "SELECT nothing()"])
async def test_a_missing_table_column_or_function_is_an_outdated_schema(database, statement):
    """It is 503, not a defect: a migration may add it."""
    with pytest.raises(SchemaOutdatedError):
        await database.run(text(statement), {})
    await assert_all_connections_work(database)


async def test_a_request_to_a_frozen_server_ends_in_time(database_url):
    """A frozen server is 504 or 503 soon after the limit; when it answers again, requests succeed."""
    limits = {"connections": 2, "wait_seconds": 0.5, "statement_seconds": 0.3}
    async with proxied(database_url) as proxy, connected(proxy.url, **limits) as database:
        await open_all(database)

        proxy.freeze()
        answers = await asyncio.gather(*(outcome(database.run(ONE, {})) for _ in range(6)))
        later = await asyncio.gather(*(outcome(database.run(ONE, {})) for _ in range(6)))
        proxy.thaw()

        assert {"statement_timeout"} == {code for code, _ in answers[:2]}
        assert {code for code, _ in answers + later} <= {"statement_timeout", "database_unavailable", "pool_exhausted"}
        assert max(seconds for _, seconds in answers + later) < 0.3 + 2
        await assert_all_connections_work(database)


async def test_a_commit_that_waits_for_a_lost_standby_keeps_no_session(own_cluster):
    """Neither `statement_timeout` nor a client that is gone ends such a commit, so the server is asked to end it."""
    await asyncio.to_thread(wait_for_standby, own_cluster, "gone")
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' AND wait_event = 'SyncRep'"
    connection = await asyncpg.connect(own_cluster.url)
    try:
        async with connected(own_cluster.url, connections=2, statement_seconds=0.3) as database:
            while ["ok"] == await outcomes(database.run(INSERT, {})):
                pass  # The server has not read its setting yet.
            await until_free(database)
            for _ in range(2):
                assert ["statement_timeout"] * 2 == await outcomes(*(database.run(INSERT, {}) for _ in range(2)))
                await until_free(database)
                assert 0 == await connection.fetchval(waiting)
                assert await connection.fetchval(BACKENDS) <= 2
            assert ["ok"] == await outcomes(database.run(COUNT, {}))
    finally:
        await connection.close()


async def test_a_statement_whose_connection_is_reset_is_unavailable(database_url):
    """The statement is 503; idle connections that were reset are replaced, and no request fails."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        await open_all(database)
        running = asyncio.create_task(outcome(sleep(database, 0.8)))
        await asyncio.sleep(0.1)

        proxy.cut()

        assert "database_unavailable" == (await running)[0]
        await assert_all_connections_work(database)


async def test_a_defect_in_a_statement_is_raised_as_it_is(database):
    """The driver's error is raised, and the connection is kept."""
    for statement in ("SELECT 1/0", "SELEC", "SELECT 'x'::int"):
        with pytest.raises(Exception) as raised:  # noqa: PT011  # the driver's type
            await database.run(text(statement), {})
        assert not isinstance(raised.value, RequestError)
    await assert_all_connections_work(database)
