"""Databases and revisions to migrate."""

from pathlib import Path

import pytest

from tests.cluster import as_role
from tests.migrations.alembic import copy_project


@pytest.fixture
def owner_url(database_url: str) -> str:
    """A migrated database, as the role that migrates."""
    return as_role(database_url, "items_owner")


@pytest.fixture
def revisions(tmp_path: Path) -> Path:
    """A copy of the project's revisions, for throw-away ones."""
    return copy_project(tmp_path)
