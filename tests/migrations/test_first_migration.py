"""Databases with an encoding or a locale that the service cannot use, or not fully."""

import pytest

from tests.cluster import execute
from tests.migrations.alembic import HEAD, VERSION_TABLE, alembic, events, fetch, succeed
from tests.migrations.test_offline import run_script
from tests.migrations.versions import REVISIONS

C_LOCALE = "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
TURKISH = "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_than_utf8_is_refused(create, encoding):
    """One sentence names the encoding and says how to create the database. Nothing is made."""
    url = create(f"ENCODING '{encoding}' {C_LOCALE}")

    done = alembic(url, "upgrade", "head")

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert f"the encoding of this database is {encoding}" in done.stderr
    assert "ENCODING 'UTF8'" in done.stderr
    assert "The statement:" not in done.stderr
    assert [] == fetch(url, "SELECT FROM pg_tables WHERE schemaname = 'public'")


def test_the_script_refuses_another_encoding_than_utf8(create):
    """The SQL of `upgrade head --sql` stops before it makes anything."""
    url = create(f"ENCODING 'LATIN1' {C_LOCALE}")

    done = run_script(url, succeed(None, "upgrade", "head", "--sql").stdout)

    assert 3 == done.returncode
    assert "the encoding of this database is LATIN1" in done.stderr
    assert [] == fetch(url, "SELECT FROM pg_tables WHERE schemaname = 'public'")


# The PostgreSQL that comes as a Python package has no ICU.
@pytest.mark.needs("postgresql")
def test_a_locale_in_which_searches_depend_on_the_case_is_reported_once(create):
    """Without ICU, the first migration warns of the locale, and is applied. Later commands do not warn."""
    url = create(C_LOCALE)
    execute(url, 'DROP COLLATION "und-x-icu"')

    first = events(succeed(url, "upgrade", REVISIONS[0]).stderr)
    second = events(succeed(url, "upgrade", "head").stderr)

    assert [("postgresql_warning", "warning")] == [
        (event["event"], event["level"]) for event in first if not event["event"].startswith("revision")
    ]
    assert "does not convert upper case to lower case as Unicode does" in first[0]["message"]
    assert "postgresql_warning" not in {event["event"] for event in second}
    assert [(HEAD,)] == fetch(url, f"TABLE {VERSION_TABLE}")


def test_a_unicode_locale_is_not_reported(empty_database_url):
    """The databases of the tests have such a locale."""
    assert "postgresql_warning" not in succeed(empty_database_url, "upgrade", "head").stderr
