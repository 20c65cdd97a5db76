"""Databases with an encoding or a locale that the service cannot use, or not fully."""

import pytest

from tests.cluster import execute
from tests.migrations.alembic import HEAD, VERSION_TABLE, alembic, events, fetch, succeed
from tests.migrations.test_offline import run_script
from tests.migrations.versions import REVISIONS

C_LOCALE = "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
TURKISH = "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'"


@pytest.fixture
def create(cluster):
    """Create a database with these options, and return its URL. It is dropped afterwards."""
    name = "first_migration"

    def create_with(options):
        execute(cluster.url, f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return cluster.url.replace("/postgres?", f"/{name}?")

    yield create_with
    execute(cluster.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


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


@pytest.mark.parametrize(
    "options",
    [
        C_LOCALE,
        pytest.param(TURKISH, marks=pytest.mark.needs("postgresql")),
        pytest.param("LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'", marks=pytest.mark.needs("postgresql")),
        pytest.param("LOCALE_PROVIDER icu ICU_LOCALE 'en-US'", marks=pytest.mark.needs("postgresql")),
    ],
)
def test_searches_ignore_case_by_the_same_rule_in_every_locale(create, options):
    """The locale of the database changes neither which letters are equal nor what the index contains."""
    url = create(options)
    assert "postgresql_warning" not in succeed(url, "upgrade", "head").stderr
    folded = "SELECT caseless('{}') = caseless('{}'), letter_triples('{}') = letter_triples('{}')"

    for one, other in [
        ("KITCHEN", "kitchen"), ("ÉCRU", "écru"), ("ШАРФ", "шарф"), ("ΟΔΟΣ", "οδος"), ("οδοσ", "οδος"),
        ("STRASSE", "straße"), ("ẞ", "ß"), ("\u212a", "k"), ("\u0131", "I"), ("Ǆ", "ǆ"),
    ]:  # fmt: skip
        assert [(True, True)] == fetch(url, folded.format(one, other, one, other)), (one, other)
    # The last two have the same look: only one of them is in the form NFC.
    for one, other in [("İ", "i"), ("é", "e"), ("\xe9", "e\u0301")]:
        assert [(False, False)] == fetch(url, folded.format(one, other, one, other)), (one, other)


@pytest.mark.parametrize("function", ["letter_pairs", "letter_triples"])
def test_an_index_is_evaluated_without_a_search_path(empty_database_url, function):
    """PostgreSQL does so when it restores a dump, and since version 17 when it builds an index."""
    url = empty_database_url
    succeed(url, "upgrade", "head")

    (found,) = fetch(url, f"SELECT set_config('search_path', '', false), length(public.{function}('Écru'))")

    assert ("", 4) == found


def test_a_unicode_locale_is_not_reported(empty_database_url):
    """The databases of the tests have such a locale."""
    assert "postgresql_warning" not in succeed(empty_database_url, "upgrade", "head").stderr
