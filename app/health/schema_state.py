"""Is the database behind, at, or ahead of this code?"""

from enum import StrEnum
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import text

from app.database import Database
from app.errors import SchemaOutdatedError

_MIGRATIONS = Path(__file__).parents[2] / "migrations"
_current = text("SELECT version_num FROM alembic_version")


class SchemaState(StrEnum):
    """Where the database's revision stands in this code's graph of revisions."""

    BEHIND = "behind"
    CURRENT = "current"
    AHEAD = "ahead"
    """The revision is unknown to this code: a newer release has migrated. A rollback must stay possible."""


class Revisions:
    """The revisions that this code brings."""

    def __init__(self, migrations: Path = _MIGRATIONS) -> None:
        scripts = ScriptDirectory(str(migrations))
        self.head = scripts.get_current_head()
        self._known = {script.revision for script in scripts.walk_revisions()}

    def state(self, revision: str | None) -> SchemaState:
        """Where a database at this revision stands; None is a database that was never migrated."""
        if revision == self.head:
            return SchemaState.CURRENT
        if revision is None or revision in self._known:
            return SchemaState.BEHIND
        return SchemaState.AHEAD


async def current_revision(database: Database) -> str | None:
    """The revision that the database is at, None where it was never migrated.

    Raises:
        DatabaseUnavailableError, PoolExhaustedError, StatementTimeoutError: As `Database.run` does.
    """
    try:
        rows = await database.run(_current, {}, may_be_shed=False)
    except SchemaOutdatedError:
        return None
    return rows[0]["version_num"] if rows else None
