"""The tests of the HTTP API, and the usual faults, through a real PgBouncer in transaction mode."""

import asyncio
import shutil
import tempfile
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import Float, bindparam, func, select, text

from app import NAME
from app.database import slow
from app.errors import DatabaseUnavailableError, PoolExhaustedError, SlowStatementTimeoutError, StatementTimeoutError
from app.settings import DatabasePooler, Settings
from tests.cluster import execute
from tests.databases import connected
from tests.deploy.poolers import SERVER_CONNECTIONS, pooler
from tests.http import test_cursors, test_etags, test_pagination
from tests.resources import MODULES

pytestmark = pytest.mark.needs("pgbouncer")

SUM = text("SELECT CAST(:a AS bigint) + CAST(:b AS bigint) AS sum, pg_backend_pid() AS server")
SERVER = text("SELECT pg_backend_pid() AS server")
SLEEP = text("SELECT pg_sleep(:seconds)").bindparams(bindparam("seconds"))
SLOW_SLEEP = slow(select(func.pg_sleep(bindparam("seconds", type_=Float))))
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"

MODES = {"1.18": "pgbouncer", "1.24": "pgbouncer", "1.24-prepared": "pgbouncer-prepared"}

_names = [f"test_{resource}{part}" for resource in sorted(MODULES) for part in ("", "_idempotency")]
_resources = [import_module(f"tests.routers.{name}") for name in _names]

# These tests run once more here, with other settings.
for _module in (test_cursors, test_etags, test_pagination, *_resources):
    for _name, _value in vars(_module).items():
        if _name.startswith("test_"):
            globals()[f"{_name}__{_module.__name__.rsplit('.')[-1]}"] = _value
        elif type(_value).__name__ == "FixtureFunctionDefinition":
            globals()[_name] = _value


def pytest_generate_tests(metafunc):
    """Each mode with each test of this file; what is tested elsewhere as well, without the mode between the others."""
    if "pooled" in metafunc.fixturenames:
        modes = [mode for mode in MODES if metafunc.function.__module__ == __name__ or mode != "1.24"]
        metafunc.parametrize("pooled", modes, indirect=True, scope="module")


@pytest.fixture(scope="module")
def pooled(request, images, cluster):
    """A PgBouncer before the tests' cluster, and the value of DATABASE_POOLER for it."""
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    try:
        with pooler(images, cluster, folder, request.param.partition("-")[0]) as running:
            yield running, DatabasePooler(MODES[request.param])
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def settings(pooled, database_url):
    """Settings of a service whose database is behind PgBouncer."""
    running, mode = pooled
    return Settings.load(
        database_url=running.url(database_url),
        database_pooler=mode,
        database_wait_seconds=10,  # some tests send fifty requests at once, and machines may be slow
        rate_limit_enabled=False,
        _env_file=None,
    )


@pytest.fixture
async def behind(pooled, database_url):
    """This test's database through PgBouncer, with more connections than that has."""
    running, mode = pooled
    limits = {
        "connections": 30,
        "through_pgbouncer": True,
        "prepared_statements": mode is DatabasePooler.PGBOUNCER_PREPARED,
        "statement_seconds": 5.0,
        "wait_seconds": 5.0,
    }
    async with connected(running.url(database_url), **limits) as database:
        yield database


async def test_many_clients_on_few_connections_get_their_own_answers(behind):
    """Each of 600 statements gets its own sum, over several of PgBouncer's server connections."""
    rows = await asyncio.gather(*(behind.run(SUM, {"a": n, "b": 2 * n}) for n in range(600)))

    assert [3 * n for n in range(600)] == [row[0]["sum"] for row in rows]
    servers = {row[0]["server"] for row in rows}
    assert 2 <= len(servers) <= SERVER_CONNECTIONS
    assert behind.state.open > SERVER_CONNECTIONS


async def test_transactions_hold_together(behind):
    """The statements of one transaction run on one server connection, among many other requests."""

    async def servers(n):
        async with behind.transaction() as transaction:
            found = []
            for statement in (SUM, SERVER, SUM):
                row = (await transaction.run(statement, {"a": n, "b": 1}))[0]
                assert row.get("sum", n + 1) == n + 1
                found.append(row["server"])
                await behind.run(SUM, {"a": n, "b": 1}) if n % 50 == 0 else await asyncio.sleep(0)
            return set(found)

    found = await asyncio.gather(*(servers(n) for n in range(1, 41)))

    assert all(len(each) == 1 for each in found)


async def test_the_timeout_of_the_role_cancels_a_statement(behind, database_url, cluster):
    """PgBouncer passes no timeout on, so the role has it: the request is 504, and its connection is kept."""
    name = database_url.split("?")[0].rsplit("/", 1)[1]
    await asyncio.to_thread(
        execute, cluster.url, f"ALTER ROLE items_app IN DATABASE \"{name}\" SET statement_timeout = '300ms'"
    )
    started = asyncio.get_running_loop().time()
    with pytest.raises(StatementTimeoutError):
        await behind.run(SLEEP, {"seconds": 4})

    assert asyncio.get_running_loop().time() - started < 2
    assert 1 == behind.state.open


async def test_a_slow_statement_is_cancelled_in_the_server(behind, sql):
    """PgBouncer forwards the request to cancel it: it ends long before it is done, and its connection is kept."""
    with pytest.raises(SlowStatementTimeoutError):
        await behind.run(SLOW_SLEEP, {"seconds": 30})

    await none_sleeps(behind, sql)
    assert 5 == (await behind.run(SUM, {"a": 2, "b": 3}))[0]["sum"]
    assert 1 == behind.state.open


async def none_sleeps(database, sql):
    """Wait until the server runs no sleep and no connection is in use."""
    async with asyncio.timeout(10):
        while database.state.in_use or await sql.fetchval(SLEEPING):  # noqa: ASYNC110  # the server sends no event
            await asyncio.sleep(0.02)


async def test_statements_of_clients_that_are_gone_are_cancelled_in_the_server(behind, sql):
    """No other statement is cancelled with them, and every connection works afterwards."""
    gone = [asyncio.create_task(behind.run(SLEEP, {"seconds": 30})) for _ in range(SERVER_CONNECTIONS - 1)]
    await asyncio.sleep(0.5)
    assert SERVER_CONNECTIONS - 1 == await sql.fetchval(SLEEPING)

    async def sums():
        return [(await behind.run(SUM, {"a": n, "b": 1}))[0]["sum"] for n in range(100)]

    others = asyncio.create_task(sums())
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)

    assert list(range(1, 101)) == await others
    assert list(range(1, 101)) == await sums()
    await none_sleeps(behind, sql)


async def test_a_request_that_waits_too_long_for_pgbouncer_is_unavailable(behind):
    """When all connections are busy, a wait longer than query_wait_timeout is 503, and the others succeed."""
    results = await asyncio.gather(
        *(behind.run(SLEEP, {"seconds": 3.5}) for _ in range(SERVER_CONNECTIONS + 3)), return_exceptions=True
    )

    assert SERVER_CONNECTIONS == sum(isinstance(result, list) for result in results)
    refused = [result for result in results if not isinstance(result, list)]
    assert all(isinstance(error, DatabaseUnavailableError | PoolExhaustedError) for error in refused), refused
    assert 5 == (await behind.run(SUM, {"a": 2, "b": 3}))[0]["sum"]


async def test_no_request_fails_after_pgbouncers_connections_were_killed(behind, sql, cluster):
    """PgBouncer replaces its idle connections, and the next requests succeed."""
    await asyncio.gather(*(behind.run(SUM, {"a": n, "b": 1}) for n in range(50)))
    await asyncio.to_thread(
        execute,
        cluster.url,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'",
    )
    await asyncio.sleep(0.2)
    rows = await asyncio.gather(*(behind.run(SUM, {"a": n, "b": 1}) for n in range(50)))

    assert list(range(1, 51)) == [row[0]["sum"] for row in rows]


async def test_pgbouncer_can_be_restarted(pooled, client):
    """Without it requests are 503; when it is back they succeed, without a restart of the service."""
    running, _ = pooled
    assert 200 == (await client.get("/samples")).status_code
    running.kill()
    try:
        answers = [await client.get("/samples") for _ in range(3)]
    finally:
        running.start()

    assert [503] * 3 == [answer.status_code for answer in answers]
    assert {"database_unavailable"} == {answer.json()["code"] for answer in answers}
    assert [200] * 3 == [(await client.get("/samples")).status_code for _ in range(3)]
