import asyncio
import shutil
import socket
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from app import database as databases
from app.database.connection import Connector
from app.database.peer import NOT_READ_COMMITTED, PARAMETERS_REFUSED, PARAMETERS_REFUSED_BY_POOLER
from app.database_url import DatabaseUrl
from app.errors import DatabaseSetupError, DatabaseUnavailableError, root_cause
from app.settings import Settings
from tests.cluster import as_role, execute
from tests.databases import ONE, PoolEvents, assert_all_connections_work, connected, open_all, outcome, outcomes
from tests.deploy.poolers import Pooler
from tests.proxy import proxied

ISOLATION = text("SHOW transaction_isolation")


async def test_a_connection_is_replaced_at_its_greatest_age(database_url):
    """No statement runs on an older one, and an idle one is closed while others are used."""
    events = PoolEvents()
    async with connected(database_url, connection_seconds=0.4, observer=events) as database:
        await open_all(database)
        first = {row[0] for row in await asyncio.gather(*(pid(database) for _ in range(3)))}
        assert first == {row[0] for row in await asyncio.gather(*(pid(database) for _ in range(3)))}
        await asyncio.sleep(0.45)

        later = [(await pid(database))[0] for _ in range(4)]

        assert first.isdisjoint(later)
        assert 1 == len(set(later))
        assert 1 == database.state.open == events.open


async def pid(database):
    """The backend of a connection, which is held for a moment."""
    return (await database.run(text_pid, {}))[0]


text_pid = text("SELECT pg_backend_pid() FROM pg_sleep(0.02)")


async def test_connections_that_the_network_forgot_cost_one_request(database_url):
    """After one timeout without an answer all older connections are replaced before they are used."""
    async with proxied(database_url) as proxy, connected(proxy.url, statement_seconds=0.3, connections=6) as database:
        await open_all(database)
        proxy.forget()

        found = [await outcome(database.run(ONE, {})) for _ in range(12)]

        assert ["statement_timeout"] + ["ok"] * 11 == [code for code, _ in found]
        assert max(seconds for _, seconds in found[1:]) < 0.3
        await assert_all_connections_work(database)


async def test_an_idle_connection_is_probed(database_url):
    """The operating system finds a dead peer of an idle connection, and a NAT sees traffic."""
    async with proxied(database_url) as proxy:
        connection = await connector(proxy.url).open([])
        peer = connection._transport.get_extra_info("socket")

        assert 1 == peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 30 == peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        assert 10 == peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        assert 3 == peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        connection.terminate()


def connector(url):
    """What opens connections to this URL."""
    return Connector(
        lambda: DatabaseUrl.parse(url),
        wait_seconds=1,
        statement_seconds=1,
        connection_seconds=1800,
        through_pgbouncer=False,
        prepared_statements=True,
    )


@pytest.mark.parametrize("frozen", [1, 2, 3])
async def test_a_frozen_host_does_not_keep_a_request_from_the_next(database_url, frozen):
    """Each host has its own connect time, and all of them together fit into a request's wait."""
    async with proxied(database_url) as stuck, proxied(database_url) as alive:
        stuck.freeze()
        stuck_host, alive_host = (url.split("@")[1].split("/")[0] for url in (stuck.url, alive.url))
        url = alive.url.replace(alive_host, ",".join([stuck_host] * frozen + [alive_host]))
        async with connected(url, wait_seconds=1.0, connections=1) as database:
            started = perf_counter()

            assert ["ok"] * 5 == await outcomes(*(database.run(ONE, {}) for _ in range(5)))

            assert perf_counter() - started < 1


async def test_a_rotated_password_is_read_again(own_cluster, tmp_path):
    """When the server refuses the login, the URL's file is read again, and no request fails."""
    await asyncio.to_thread(execute, own_cluster.url, "CREATE ROLE guarded LOGIN PASSWORD 'old'")
    rules = own_cluster.data / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
    await asyncio.to_thread(execute, own_cluster.url, "SELECT pg_reload_conf()")
    file = tmp_path / "url"
    url = own_cluster.url.replace("postgres@", "guarded:old@")
    file.write_text(url)
    settings = Settings.load(database_url_file=file, _env_file=None)
    limits: dict[str, Any] = {"connections": 3, "wait_seconds": 1, "statement_seconds": 1, "connection_seconds": 1800}
    async with databases.connect(
        settings.read_database_url,
        **limits,
        through_pgbouncer=False,
        prepared_statements=True,
        observer=PoolEvents(),
    ) as database:
        await database.run(ONE, {})
        await asyncio.to_thread(execute, own_cluster.url, "ALTER ROLE guarded PASSWORD 'new'")
        await asyncio.to_thread(
            execute, own_cluster.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'"
        )
        await asyncio.sleep(0.1)

        with pytest.raises(DatabaseUnavailableError):
            await database.run(ONE, {})
        file.write_text("not a URL: hunter2")
        with pytest.raises(DatabaseSetupError) as raised:
            await database.run(ONE, {})
        assert "DATABASE_URL" in str(root_cause(raised.value))
        assert "hunter2" not in str(root_cause(raised.value))
        file.write_text(url.replace("old", "new"))
        assert ["ok"] * 6 == await outcomes(*(database.run(ONE, {}) for _ in range(6)))
        await assert_all_connections_work(database)


REFUSALS = [
    asyncpg.InvalidPasswordError("password authentication failed"),
    asyncpg.InvalidAuthorizationSpecificationError("the role is not permitted to log in"),
    asyncpg.InsufficientPrivilegeError("permission denied for database"),
    asyncpg.ProtocolViolationError("password authentication failed"),
    asyncpg.ProtocolViolationError("no such user"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
@pytest.mark.parametrize("hosts", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
async def test_the_url_is_read_again_whatever_reports_the_refusal(database_url, monkeypatch, refusal, hosts):
    """PostgreSQL and the versions of PgBouncer have different SQLSTATEs for it. Several hosts refuse like one."""
    refused = DatabaseUrl.parse(f"postgresql://a@{hosts}/b")
    urls = [refused, DatabaseUrl.parse(database_url)]
    connect = asyncpg.connect

    async def refusing(*arguments, **options):
        if options["user"] == refused.user:
            raise refusal
        return await connect(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", refusing)
    async with databases.connect(
        lambda: urls.pop(0) if len(urls) > 1 else urls[0],
        connections=1,
        wait_seconds=1,
        statement_seconds=1,
        connection_seconds=1800,
        through_pgbouncer=False,
        prepared_statements=True,
        observer=PoolEvents(),
    ) as database:
        assert ["ok"] * 2 == await outcomes(database.run(ONE, {}), database.run(ONE, {}))


@pytest.mark.parametrize("hosts", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
@pytest.mark.parametrize(
    ("through_pgbouncer", "sentence"), [(False, PARAMETERS_REFUSED), (True, PARAMETERS_REFUSED_BY_POOLER)]
)
async def test_a_refused_startup_parameter_is_named(monkeypatch, hosts, through_pgbouncer, sentence):
    """What to write depends on whether DATABASE_POOLER is set already."""

    async def refusing(*_arguments, **_options):
        raise asyncpg.ProtocolViolationError("unsupported startup parameter: options")

    monkeypatch.setattr(asyncpg, "connect", refusing)
    async with connected(f"postgresql://a@{hosts}/b", through_pgbouncer=through_pgbouncer) as database:
        with pytest.raises(DatabaseSetupError) as raised:
            await database.run(ONE, {})

    assert sentence == root_cause(raised.value)
    assert through_pgbouncer == ("DATABASE_POOLER" not in sentence)


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("method", ["plain", "md5", "scram-sha-256"])
async def test_a_rotated_password_is_read_again_behind_pgbouncer(cluster, database_url, tmp_path, method):
    """Which has the SQLSTATE of a protocol violation for a wrong password."""
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))  # which PgBouncer's user can read
    pooler = Pooler(None, cluster, folder, "1.18", {"auth_type": method})
    users = folder / "secrets" / "userlist.txt"
    file = tmp_path / "url"
    settings = {"database_pooler": "pgbouncer", "database_url_file": file, "_env_file": None}
    try:
        users.write_text('"items_app" "old"\n')
        file.write_text(pooler.url(database_url).replace("items_app", "items_app:old"))
        pooler.start()
        async with databases.connect(
            Settings.load(**settings).read_database_url,
            connections=2,
            wait_seconds=1,
            statement_seconds=1,
            connection_seconds=1800,
            through_pgbouncer=True,
            prepared_statements=False,
            observer=PoolEvents(),
        ) as database:
            assert ["ok"] == await outcomes(database.run(ONE, {}))
            pooler.kill()
            users.write_text('"items_app" "new"\n')
            pooler.start()
            assert ["database_unavailable"] == await outcomes(database.run(ONE, {}))

            file.write_text(file.read_text().replace("old", "new"))

            assert ["ok"] * 4 == await outcomes(*(database.run(ONE, {}) for _ in range(4)))
    finally:
        pooler.kill()
        shutil.rmtree(folder)


async def test_statements_are_read_committed(database_url, sql):
    """Whatever the database's own default is."""
    name = await sql.fetchval("SELECT current_database()")
    for default in ("serializable", "repeatable read"):
        await sql.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{default}'")
        async with connected(as_role(database_url, "postgres")) as database:
            assert "read committed" == (await database.run(ISOLATION, {}))[0][0]
            async with database.transaction() as transaction:
                assert "read committed" == (await transaction.run(ISOLATION, {}))[0][0]


async def test_another_isolation_level_behind_a_pooler_is_refused(database_url, sql):
    """A pooler refuses the parameter that would set it, so the role must have it, as that of roles.sql has."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
    pooled = {"through_pgbouncer": True, "prepared_statements": False}
    async with connected(as_role(database_url, "postgres"), **pooled) as database:
        with pytest.raises(DatabaseSetupError) as raised:
            await database.run(ONE, {})
        assert NOT_READ_COMMITTED == root_cause(raised.value)
    async with connected(database_url, **pooled) as database:
        assert "read committed" == (await database.run(ISOLATION, {}))[0][0]
