"""Databases to migrate, and revisions to migrate them with."""

from pathlib import Path

import pytest

from tests.cluster import as_role
from tests.migrations.alembic import copy_project


@pytest.fixture
def owner_url(database_url: str) -> str:
    """The URL of a migrated database for the role that owns its tables."""
    return as_role(database_url, "items_owner")


@pytest.fixture
def revisions_copy(tmp_path: Path) -> Path:
    """A copy of the project, where a test can add revisions."""
    return copy_project(tmp_path)
