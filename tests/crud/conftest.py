from collections.abc import AsyncIterator

import pytest

from app.database import Database
from tests.databases import connected


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The application's connections to this test's database. No result depends on the load of the machine."""
    async with connected(database_url, wait_seconds=30.0, statement_seconds=150.0) as running:
        yield running
