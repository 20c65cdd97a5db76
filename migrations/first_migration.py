"""What is checked before the first revision is applied to a database."""

from sqlalchemy import Connection

from app.errors import StartupError
from app.health.schema_state import VERSION_TABLE
from migrations.tables import existing_tables

CHECK_DATABASE = """
DO $$
BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the encoding of this database is %, and the service stores any Unicode text: '
            'create the database with ENCODING ''UTF8'' TEMPLATE template0.', current_setting('server_encoding');
    END IF;
    IF lower('I' || chr(201) || chr(1046)) <> 'i' || chr(233) || chr(1078)
        AND NOT EXISTS (SELECT FROM pg_collation WHERE collname IN ('und-x-icu', 'pg_unicode_fast', 'pg_c_utf8')) THEN
        RAISE WARNING 'The locale of this database does not convert upper case to lower case as Unicode does: '
            'a search finds some letters only in the case in which they are stored. '
            'Use a server with ICU, or create the database with another locale, such as C.UTF-8, if that matters.';
    END IF;
END
$$;
"""
"""Refuses an encoding that cannot store every text, and warns of a locale in which searches depend on the case.

The locale does not matter where the server has a collation with Unicode's rules: see the revision items_0006."""


def check_database(connection: Connection) -> None:
    """Refuse a database that the service cannot use.

    Raises:
        StartupError: A table of the service exists already, so the first revision would fail.
        DBAPIError: The encoding is not UTF8. The message of its cause says so.
    """
    if tables := existing_tables(connection):
        raise StartupError(
            f"The table {min(tables)} exists, but {VERSION_TABLE} has no revision: if an earlier release of this "
            "service made it, write its revision with `alembic stamp REVISION`; if not, use another database or schema."
        )
    connection.exec_driver_sql(CHECK_DATABASE)
