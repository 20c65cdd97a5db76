import pytest

from tests.migrations.alembic import fetch, succeed
from tests.migrations.test_first_migration import C_LOCALE, TURKISH


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
