"""Makes a database what earlier releases left: their version table, with their name of the revision."""

from migrations.version_table import OLD_TABLE
from tests.cluster import execute
from tests.migrations.alembic import VERSION_TABLE, succeed


def install_old_release(url: str, revision: str) -> None:
    """Migrate a database to this revision, and put the old version table in the place of the new one."""
    succeed(url, "upgrade", f"items_{revision}")
    execute(
        url,
        f"DROP TABLE {VERSION_TABLE};"
        f"CREATE TABLE {OLD_TABLE} (version_num varchar(32) NOT NULL CONSTRAINT {OLD_TABLE}_pkc PRIMARY KEY);"
        f"INSERT INTO {OLD_TABLE} VALUES ('{revision}')",
    )
