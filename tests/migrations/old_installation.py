"""Makes a database what earlier releases left: their version table, with their name of the revision."""

from migrations.version_table import OLD_TABLE
from tests.cluster import as_role, execute
from tests.migrations.alembic import VERSION_TABLE, succeed


def install_old_release(url: str, revision: str) -> None:
    """Migrate a database to this revision, and rename the version table and the revision as they were."""
    succeed(url, "upgrade", f"items_{revision}")
    execute(
        as_role(url, "postgres"),
        f"ALTER TABLE {VERSION_TABLE} RENAME TO {OLD_TABLE};"
        f"ALTER TABLE {OLD_TABLE} RENAME CONSTRAINT {VERSION_TABLE}_pkc TO {OLD_TABLE}_pkc;"
        f"UPDATE {OLD_TABLE} SET version_num = '{revision}'",
    )
