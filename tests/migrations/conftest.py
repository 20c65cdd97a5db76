"""Databases to migrate, and revisions to migrate them with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.embedded_postgres.cluster import Cluster
from tests.cluster import as_role, execute
from tests.migrations.alembic import copy_project


@pytest.fixture
def owner_url(database_url: str) -> str:
    """The URL of a migrated database for the role that owns its tables."""
    return as_role(database_url, "items_owner")


@pytest.fixture
def revisions_copy(tmp_path: Path) -> Path:
    """A copy of the project, where a test can add revisions."""
    return copy_project(tmp_path)


@pytest.fixture
def create(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Create a database with these options, and return its URL. It is dropped afterwards."""
    name = "first_migration"

    def create_with(options: str) -> str:
        execute(cluster.url, f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return cluster.url.replace("/postgres?", f"/{name}?")

    yield create_with
    execute(cluster.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
