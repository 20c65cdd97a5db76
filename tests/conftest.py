"""Fixtures that many tests use: a PostgreSQL, a migrated database for each test, a client of the application."""

import functools
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator

import asyncpg
import httpx
import hypothesis
import pytest
from _pytest import hookspec
from _pytest.nodes import Node
from _pytest.terminal import TerminalReporter

from app.database import Database
from app.embedded_postgres.cluster import Cluster
from app.settings import Settings
from tests import programs
from tests.application import opened
from tests.cluster import (
    as_role,
    create_database,
    create_samples,
    execute,
    migrate,
    migrate_as_owner,
    throw_away_cluster,
)
from tests.databases import connected
from tests.log_lines import Lines, reading_lines

# The duration of an example depends on the load of the machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_numbers = itertools.count(1)

_NEEDS = "needs "
"""How the reason of a skipped test begins that needs a program."""


# pytest's name of the argument is also the name of the first resource, which a copy of this service must not contain.
# With `wraps`, pytest reads the arguments of its own specification.
@pytest.hookimpl(tryfirst=True)
@functools.wraps(hookspec.pytest_runtest_setup, assigned=())
def pytest_runtest_setup(test: Node) -> None:
    """Skip a test whose programs are missing. In continuous integration it fails."""
    if missing := programs.declare(test):
        if os.environ.get("CI") == "true":
            pytest.fail("\n".join(programs.how_to_get(missing)), pytrace=False)
        pytest.skip(_NEEDS + ", ".join(missing))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> Generator[None]:
    """Say last which tests were not run because a program is missing, and how to get it."""
    yield
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = [reason.removeprefix("Skipped: ") for _, _, reason in skipped]
    missing = Counter(
        name for reason in reasons if reason.startswith(_NEEDS) for name in reason.removeprefix(_NEEDS).split(", ")
    )
    if missing:
        terminalreporter.section("not run: programs are missing")
        for (_, tests), line in zip(sorted(missing.items()), programs.how_to_get(sorted(missing)), strict=True):
            terminalreporter.line(f"{tests} tests need {line}")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of every asynchronous test and fixture."""
    return "asyncio"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running PostgreSQL that all tests of this process share."""
    with throw_away_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def _template(cluster: Cluster) -> str:
    url = create_database(cluster, "migrated")
    migrate_as_owner(url)
    create_samples(as_role(url, "items_owner"))
    return "migrated"


@pytest.fixture
def empty_database_url(cluster: Cluster) -> Iterator[str]:
    """A database without any table, for this test alone."""
    yield from _database(cluster, "template0")


@pytest.fixture
def database_url(cluster: Cluster, _template: str) -> Iterator[str]:
    """A migrated database for this test alone, as the service's own role, which may only read and write rows."""
    for url in _database(cluster, _template):
        yield as_role(url, "items_app")


def _database(cluster: Cluster, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield create_database(cluster, name, template)
    execute(cluster.url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL for this test alone, to stop, freeze or kill. Its database `postgres` is migrated.

    It keeps what it has acknowledged even if its processes are killed.
    """
    with throw_away_cluster({"synchronous_commit": "on"}) as running:
        migrate(running.url)
        create_samples(running.url)
        yield running


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings for this test's database. The environment and `.env` are not read."""
    return Settings.load(database_url=database_url, rate_limit_enabled=False, _env_file=None)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with the samples, which runs in this process with its lifespan."""
    async with opened(settings) as running:
        yield running


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The application's connections to this test's database, with timeouts that a test can wait for."""
    async with connected(database_url) as running:
        yield running


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to this test's database, beside the application."""
    connection = await asyncpg.connect(database_url, user="postgres")
    yield connection
    await connection.close()


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Configures this process at debug, and gives back what it has logged since the last call."""
    with reading_lines() as read:
        yield read
