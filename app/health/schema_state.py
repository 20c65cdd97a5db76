"""Compares the database's schema revision with the revisions of this code."""

from enum import StrEnum
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import text

from app.database import Database
from app.errors import SchemaOutdatedError

_MIGRATIONS = Path(__file__).parents[2] / "migrations"
_current = text("SELECT version_num FROM alembic_version")


class SchemaState(StrEnum):
    """The database's revision compared with the newest revision of this code."""

    BEHIND = "behind"
    CURRENT = "current"
    AHEAD = "ahead"
    """This code does not know the revision: a newer release has migrated. A rollback must stay possible."""


class Revisions:
    """The revisions of this code."""

    def __init__(self, migrations: Path = _MIGRATIONS) -> None:
        scripts = ScriptDirectory(str(migrations))
        self.head = scripts.get_current_head()
        self._known = {script.revision for script in scripts.walk_revisions()}

    def state(self, revision: str | None) -> SchemaState:
        """The state of a database at this revision. None is a database without any revision."""
        if revision == self.head:
            return SchemaState.CURRENT
        if revision is None or revision in self._known:
            return SchemaState.BEHIND
        return SchemaState.AHEAD


async def current_revision(database: Database) -> str | None:
    """The database's revision, None if it has none.

    Raises:
        DatabaseUnavailableError, PoolExhaustedError, StatementTimeoutError: As `Database.run` does.
    """
    try:
        rows = await database.run(_current, {}, sheddable=False)
    except SchemaOutdatedError:
        return None
    return rows[0]["version_num"] if rows else None
