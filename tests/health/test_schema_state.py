from pathlib import Path
from textwrap import dedent

import pytest

from app.health.schema_state import Revisions, SchemaState, current_revision
from tests.databases import connected


@pytest.fixture
def revisions(tmp_path):
    """A graph of three revisions in a row."""
    (tmp_path / "versions").mkdir()
    for number, (name, before) in enumerate([("one", None), ("two", "one"), ("three", "two")]):
        script = f"""
            revision = {name!r}
            down_revision = {before!r}
        """
        Path(tmp_path, "versions", f"{number}.py").write_text(dedent(script))
    return Revisions(tmp_path)


@pytest.mark.parametrize(
    ("revision", "state"),
    [(None, "behind"), ("one", "behind"), ("two", "behind"), ("three", "current"), ("four", "ahead"), ("", "ahead")],
)
def test_the_graph_tells_where_a_database_stands(revisions, revision, state):
    """A known revision before the head is behind, an unknown one was made by a newer release."""
    assert SchemaState(state) == revisions.state(revision)


async def test_a_migrated_database_is_at_the_head(database):
    """The migrations end where this code begins."""
    assert Revisions().head == await current_revision(database)


async def test_a_database_that_was_never_migrated_has_no_revision(empty_database_url):
    """An empty database is behind, not broken."""
    async with connected(empty_database_url) as database:
        assert await current_revision(database) is None


async def test_a_database_whose_migration_was_undone_has_no_revision(database, sql):
    """A downgrade to the base leaves Alembic's table without a row."""
    await sql.execute("DELETE FROM alembic_version")

    assert await current_revision(database) is None
