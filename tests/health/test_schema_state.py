from pathlib import Path
from textwrap import dedent

import pytest

from app.health.schema_state import Revisions, SchemaState, current_revision
from tests.databases import connected


@pytest.fixture
def revisions(tmp_path):
    """Three revisions, one after the other."""
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
def test_the_state_follows_from_the_revision(revisions, revision, state):
    """A known revision before the head is behind. An unknown revision is ahead."""
    assert SchemaState(state) == revisions.state(revision)


async def test_a_migrated_database_is_at_the_head(database):
    """After `alembic upgrade head` the database has the newest revision of this code."""
    assert Revisions().head == await current_revision(database)


async def test_an_empty_database_has_no_revision(empty_database_url):
    """The revision is None, which is not an error."""
    async with connected(empty_database_url) as database:
        assert await current_revision(database) is None


async def test_a_downgraded_database_has_no_revision(database, sql):
    """A downgrade to base leaves the version table empty."""
    await sql.execute("DELETE FROM alembic_version")

    assert await current_revision(database) is None
