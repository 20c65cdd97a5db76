"""What a role needs to read the version table."""

from sqlalchemy import Connection, text

from app.errors import StartupError
from app.health.schema_state import VERSION_TABLE

# PostgreSQL does not search a schema without USAGE, so the table seems not to exist.
_GRANTS = text(f"""
SELECT current_user AS role, array_remove(ARRAY[
    CASE WHEN NOT has_schema_privilege(pg_namespace.oid, 'USAGE')
        THEN format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user) END,
    CASE WHEN NOT has_table_privilege(pg_class.oid, 'SELECT')
        THEN format('GRANT SELECT ON %I.%I TO %I', nspname, relname, current_user) END
], NULL) AS grants
FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
WHERE relname = '{VERSION_TABLE}' AND nspname = ANY(regexp_split_to_array(
    replace(replace(current_setting('search_path'), '"', ''), '$user', current_user), ' *, *'
))
""")  # noqa: S608  # nosec


def require_readable_version(connection: Connection) -> None:
    """Refuse a role that may not read the version table.

    Raises:
        StartupError: It may not. The message says what to grant.
    """
    for row in connection.execute(_GRANTS):
        if row.grants:
            raise StartupError(
                f"The role {row.role} may not read {VERSION_TABLE}: as the owner of the table, "
                f"run {'; '.join(row.grants)}."
            )
