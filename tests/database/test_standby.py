"""A real standby beside its primary."""

import pytest

from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.health.last_report import LastReport
from app.health.readiness import Readiness
from app.health.schema_state import Revisions
from migrations import session
from tests.databases import COUNT, INSERT, connected, outcomes
from tests.health.test_readiness import Reports
from tests.replication import primary_and_standby, url_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers():
    """The primary and its standby."""
    with primary_and_standby() as running:
        yield running


async def test_writes_go_to_the_primary_although_a_standby_comes_first(servers):
    """The URL does not say which kind of server it wants."""
    primary, standby = servers
    async with connected(url_of(standby, primary)) as database:
        assert ["ok"] * 6 == await outcomes(*(database.run(INSERT, {}) for _ in range(6)))
        assert "ok" == (await check(database)).database


async def check(database):
    """The result of the readiness check."""
    return await Readiness(database, Revisions(), Reports(), LastReport(None, "readiness")).check()


async def test_a_standby_alone_is_read_only(servers):
    """Reads succeed, writes are 503, and the worker is not ready."""
    _, standby = servers
    async with connected(url_of(standby)) as database:
        assert ["ok", "database_unavailable"] == await outcomes(database.run(COUNT, {}), database.run(INSERT, {}))
        checks = await check(database)
        assert ("read_only", "current", False) == (checks.database, checks.schema, checks.passed)


async def test_migrations_run_on_the_primary(servers):
    """A standby in the URL is passed over, and one alone is refused."""
    primary, standby = servers
    connection = await session.open_connection(DatabaseUrl.parse(url_of(standby, primary)))
    assert not await connection.fetchval("SELECT pg_is_in_recovery()")
    await connection.close()

    with pytest.raises(StartupError, match="need a server that takes writes"):
        await session.open_connection(DatabaseUrl.parse(url_of(standby)))
