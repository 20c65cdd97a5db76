"""How the service's version table takes over from `alembic_version`, the version table of earlier releases.

Every service may have the table `alembic_version` and a revision 0005. So the version table and the revisions
of this service now have its name. In an installation of an earlier release, the first command that changes the
schema takes the revision over. The old table stays for instances of the earlier release that still run: both
tables follow each other until the old one is dropped. docs/decisions/0015-version-table.md says why.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, String, column, select, table, text

from app.health.schema_state import VERSION_TABLE
from app.models import Base

OLD_TABLE = "alembic_version"
OLD_REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""The revisions of the releases that read the old table."""

PREFIX = "items_"
"""In this release these revisions have the same names with this prefix."""

_MARK = f"Follows {VERSION_TABLE}"
_COMMENT = f"{_MARK} for releases that read this table. Drop it when none of them is left."

_IS_MARKED = f"coalesce(starts_with(obj_description(to_regclass('{OLD_TABLE}'), 'pg_class'), '{_MARK}'), false)"

APPLIES = {"items", "idempotency_keys"} <= set(Base.metadata.tables)
"""Whether this service has the tables of the earlier releases. If not, an old installation is another service's."""

_TABLES_EXIST = (
    "to_regclass('items') IS NOT NULL AND to_regclass('idempotency_keys') IS NOT NULL "
    "AND to_regprocedure('estimated_items(boolean, text)') IS NOT NULL"
)
"""Whether the tables of revision 0001 exist. If not, the old table belongs to another service."""

TAKE_OVER = f"""
DO $$
DECLARE
    revisions text[];
    old_owner text;
    granted record;
BEGIN
    -- The old table is read only if it can be the service's: the role may not have the right to read another one.
    IF to_regclass('{OLD_TABLE}') IS NULL
        OR (to_regclass('{VERSION_TABLE}') IS NULL AND NOT ({_TABLES_EXIST}))
        OR (to_regclass('{VERSION_TABLE}') IS NOT NULL AND NOT {_IS_MARKED})
    THEN
        RETURN;
    END IF;
    revisions := ARRAY(SELECT version_num FROM {OLD_TABLE});
    IF NOT revisions <@ ARRAY{list(OLD_REVISIONS)} THEN
        RETURN;
    END IF;
    IF to_regclass('{VERSION_TABLE}') IS NULL THEN
        IF cardinality(revisions) <> 1 THEN
            RETURN;
        END IF;
        CREATE TABLE {VERSION_TABLE} (
            version_num varchar(32) NOT NULL CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY
        );
        COMMENT ON TABLE {OLD_TABLE} IS '{_COMMENT}';
        -- The new table gets the owner and the privileges of the old one, in place of the default privileges.
        FOR granted IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role
            FROM pg_class, aclexplode(relacl) WHERE oid = '{VERSION_TABLE}'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('REVOKE ALL ON {VERSION_TABLE} FROM %s', granted.role);
        END LOOP;
        FOR granted IN
            SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role, privilege_type
            FROM pg_class, aclexplode(relacl) WHERE oid = '{OLD_TABLE}'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('GRANT %s ON {VERSION_TABLE} TO %s', granted.privilege_type, granted.role);
        END LOOP;
        SELECT relowner::regrole INTO old_owner FROM pg_class WHERE oid = '{OLD_TABLE}'::regclass;
        EXECUTE format('ALTER TABLE {VERSION_TABLE} OWNER TO %s', old_owner);
    END IF;
    DELETE FROM {VERSION_TABLE};
    INSERT INTO {VERSION_TABLE} SELECT '{PREFIX}' || revision FROM unnest(revisions) AS revision;
END
$$;
"""  # noqa: S608  # nosec
"""Takes over the revision from the old table, at first and whenever an earlier release has changed it since."""

_STATE = text(f"""
SELECT to_regclass('{OLD_TABLE}') IS NOT NULL AS has_old_table, to_regclass('{VERSION_TABLE}') IS NOT NULL AS has_table,
    {_IS_MARKED} AS is_marked, {_TABLES_EXIST} AS tables_exist
""")


def must_take_over(connection: Connection) -> bool:
    """Whether `TAKE_OVER` may change something."""
    if not APPLIES:
        return False
    state = connection.execute(_STATE).one()
    if not state.has_old_table:
        return False
    if not state.has_table:
        return bool(state.tables_exist)
    if not state.is_marked:
        return False
    old, current = _revisions(connection, OLD_TABLE), _revisions(connection, VERSION_TABLE)
    return old <= set(OLD_REVISIONS) and current != {PREFIX + revision for revision in old}


def old_table_follows(heads: Iterable[str]) -> str:
    """The statement that writes these revisions to the old table, if it was taken over and still exists."""
    values = ", ".join(f"('{_old_name(head)}')" for head in sorted(heads))
    insert = f"INSERT INTO {OLD_TABLE} VALUES {values};" if values else ""  # noqa: S608  # nosec
    return f"""
DO $$
BEGIN
    IF {_IS_MARKED} THEN
        DELETE FROM {OLD_TABLE};
        {insert}
    END IF;
END
$$;
"""  # noqa: S608  # nosec


def _revisions(connection: Connection, version_table: str) -> set[str]:
    return set(connection.scalars(select(column("version_num", String)).select_from(table(version_table))))


def _old_name(revision: str) -> str:
    """The revision's name in earlier releases. A later revision keeps its name."""
    old = revision.removeprefix(PREFIX)
    return old if old in OLD_REVISIONS else revision
