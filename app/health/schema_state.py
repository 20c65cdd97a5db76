"""Compares the database's schema with what this code needs: a revision, tables, functions, and privileges on them."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from alembic.script import ScriptDirectory
from sqlalchemy import Dialect, MetaData, TextClause, text
from sqlalchemy.dialects.postgresql.base import PGDialect

from app import NAME
from app.database import Database, named
from app.errors import DatabasePermissionDeniedError, SchemaOutdatedError
from app.models import Base

VERSION_TABLE = f"{NAME.replace('-', '_')}_alembic_version"
"""The table that Alembic keeps the revision in. No other service that uses the same database has its name."""

_MIGRATIONS = Path(__file__).parents[2] / "migrations"

_SEPARATOR = ", "
"""Between the revisions of branches that are not merged."""

_REVISION = f"(SELECT string_agg(version_num, '{_SEPARATOR}' ORDER BY version_num) FROM {VERSION_TABLE})"  # noqa: S608  # nosec

_HIDDEN_SCHEMAS = f"""
SELECT 'USAGE on schema ' || quote_ident(nspname)
FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
WHERE relname = '{VERSION_TABLE}' AND NOT has_schema_privilege(pg_namespace.oid, 'USAGE')
    AND nspname = ANY(regexp_split_to_array(replace(current_setting('search_path'), '"', ''), ' *, *'))
"""  # noqa: S608  # nosec
"""PostgreSQL searches no schema without this privilege, so its tables seem not to exist."""

_NONE = "SELECT NULL WHERE false"

_SCHEMA = """
WITH needed_table AS (SELECT name, to_regclass(name)::oid AS oid FROM unnest(CAST(:tables AS text[])) AS name),
needed_function AS (SELECT name, to_regprocedure(name)::oid AS oid FROM unnest(CAST(:functions AS text[])) AS name)
SELECT {revision} AS revision, current_user AS role,
    current_setting('transaction_read_only')::boolean AS is_read_only,
    ARRAY(
        SELECT 'the table ' || name FROM needed_table WHERE oid IS NULL
        UNION ALL SELECT 'the function ' || name FROM needed_function WHERE oid IS NULL
    ) AS missing,
    ARRAY(
        {schemas}
        UNION ALL SELECT 'SELECT on {version_table}'
        WHERE NOT has_table_privilege(to_regclass('{version_table}'), 'SELECT')
        UNION ALL SELECT privilege || ' on ' || name
        FROM needed_table, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
        WHERE NOT has_table_privilege(needed_table.oid, privilege)
        UNION ALL SELECT 'USAGE on sequence ' || sequence.oid::regclass
        FROM needed_table JOIN pg_attrdef ON adrelid = needed_table.oid
        JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
        JOIN pg_class AS sequence ON refclassid = 'pg_class'::regclass AND sequence.oid = refobjid
        WHERE CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(sequence.oid, 'USAGE') END
        UNION ALL SELECT 'USAGE on sequence ' || sequence.oid::regclass
        FROM needed_table JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = needed_table.oid
        JOIN pg_class AS sequence ON classid = 'pg_class'::regclass AND deptype = 'i' AND sequence.oid = objid
        WHERE name = ANY(:drawing)
            AND CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(sequence.oid, 'USAGE') END
        UNION ALL SELECT 'EXECUTE on function ' || name
        FROM needed_function WHERE NOT has_function_privilege(oid, 'EXECUTE')
    ) AS missing_privileges
"""
"""It reads the catalogs only, and no row of a table but the revision. An identity column needs no privilege on its
sequence; a default or a statement that calls `nextval` does."""


class SchemaState(StrEnum):
    """The database's schema compared with what this code needs."""

    BEHIND = "behind"
    """The revision is an older one, or a table or function is missing."""

    CURRENT = "current"

    AHEAD = "ahead"
    """There are revisions that this code does not know: a newer release has migrated. A rollback must stay possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a database has of what this code needs."""

    revision: str | None
    """The revision in the version table, None if there is none. Several are separated by commas."""

    role: str
    """The role of this connection."""

    is_read_only: bool
    """Whether the server takes no writes: it is a standby, or `default_transaction_read_only` is on."""

    missing: tuple[str, ...]
    """The tables and functions that do not exist, such as `the table items`."""

    missing_privileges: tuple[str, ...]
    """The privileges that the role does not have, such as `INSERT on items`."""


class Revisions:
    """The revisions of this code."""

    def __init__(self, migrations: Path = _MIGRATIONS) -> None:
        scripts = ScriptDirectory(str(migrations))
        self._heads = set(scripts.get_heads())
        self.head = _SEPARATOR.join(sorted(self._heads)) or None
        """The newest revision; several if branches are not merged yet."""
        self._known = {script.revision for script in scripts.walk_revisions()}

    def state(self, schema: Schema) -> SchemaState:
        """The state of a database with this schema."""
        if schema.revision is None or schema.missing:
            return SchemaState.BEHIND
        return self.compare(schema.revision.split(_SEPARATOR))

    def compare(self, found: Collection[str]) -> SchemaState:
        """The state of a database with these revisions: one, or one for each branch that is not merged."""
        if self._heads == set(found):
            return SchemaState.CURRENT
        if not self._heads.issubset(found) and not self._known.isdisjoint(found):
            return SchemaState.BEHIND  # one of them is older than what this code needs
        return SchemaState.AHEAD


async def read_schema(database: Database) -> Schema:
    """What the database has of what this code needs, in one statement if the version table can be read.

    Raises:
        RequestError: As `Database.check` does.
    """
    try:
        rows = await database.check(_with_revision)
    except (SchemaOutdatedError, DatabasePermissionDeniedError):
        rows = await database.check(_without_revision)
    row = rows[0]
    return Schema(
        revision=row["revision"],
        role=row["role"],
        is_read_only=row["is_read_only"],
        missing=tuple(row["missing"]),
        missing_privileges=tuple(row["missing_privileges"]),
    )


def _statement(*, revision: str, schemas: str, metadata: MetaData = Base.metadata) -> TextClause:
    preparer = cast(Dialect, cast(Any, PGDialect)()).identifier_preparer
    tables = list(metadata.tables.values())
    statement = text(_SCHEMA.format(revision=revision, schemas=schemas, version_table=VERSION_TABLE)).bindparams(
        tables=[preparer.format_table(table) for table in tables],
        functions=[function for table in tables for function in table.info.get("functions", ())],
        drawing=[preparer.format_table(table) for table in tables if table.info.get("draws_ids")],
    )
    return named("read_schema", statement)


_with_revision = _statement(revision=_REVISION, schemas=_NONE)
_without_revision = _statement(revision="CAST(NULL AS text)", schemas=_HIDDEN_SCHEMAS)
