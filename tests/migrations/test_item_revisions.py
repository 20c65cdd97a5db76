from tests.cluster import execute
from tests.migrations.alembic import succeed


def test_alembic_check_passes_without_pg_trgm(empty_database_url):
    """The index that needs the extension is not reported as missing."""
    succeed(empty_database_url, "upgrade", "head")
    execute(empty_database_url, "DROP EXTENSION IF EXISTS pg_trgm CASCADE")

    succeed(empty_database_url, "check")
