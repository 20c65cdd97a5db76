"""Which tables of the models exist in the database."""

from sqlalchemy import Connection, text

from app.errors import StartupError
from app.health.schema_state import VERSION_TABLE
from app.models import Base

_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")


def existing_tables(connection: Connection) -> set[str]:
    """The names of the models' tables that exist."""
    return {name for name in _names(connection) if connection.scalar(_EXISTS, {"name": name})}


def require_tables(connection: Connection, revision: str) -> None:
    """Refuse a database that has a revision but not the models' tables.

    Raises:
        StartupError: A table does not exist.
    """
    if missing := [name for name in _names(connection) if name not in existing_tables(connection)]:
        raise StartupError(
            f"{VERSION_TABLE} has the revision {revision}, but these tables do not exist: {', '.join(missing)}. "
            "Restore them from a backup, or, if no revision creates them, write one: alembic revision --autogenerate."
        )


def _names(connection: Connection) -> list[str]:
    """The names of the models' tables, as they are written in SQL."""
    preparer = connection.dialect.identifier_preparer
    return [preparer.format_table(table) for table in Base.metadata.sorted_tables]
