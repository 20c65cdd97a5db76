"""A PostgreSQL URI is read as libpq reads it, or refused."""

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from app.database_url import DatabaseUrl
from app.database_url.uri import parse_uri

SECRETS = ("hunt3r", "sw0rdfish")

SPECIAL = [*"@/?#[]%,&=:;+. \\'\"éß", "%40", "%2F", "%25", "@@"]

pieces = st.lists(
    st.sampled_from(
        [
            *"uhp1:@/?#[]%,&=. \\'\"é4520-_+",
            "[::1]",
            ":5432",
            "%41",
            "%2F",
            "host=",
            "port=",
            "user=",
            "dbname=",
            "sslmode=require",
            "ssl=true",
        ]
    ),
    max_size=16,
)


def libpq(uri: str) -> dict[str, str] | None:
    """What libpq reads, without empty values, or None where it refuses the URI for its form."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(uri).items() if value}
    except psycopg.ProgrammingError as error:
        # parse_uri leaves it to its caller to refuse names that it does not know.
        return {} if "invalid URI query parameter" in str(error) else None


def outcome(uri: str) -> tuple[tuple[str, str, str, str] | None, str]:
    """What the parser reads, None where it refuses, and what anybody may see of it."""
    try:
        url = DatabaseUrl.parse(uri, {})
    except ValueError as error:
        return None, str(error)
    return (url.user, url.password, url.database, ",".join(host.name for host in url.hosts)), f"{url!r}{url}"


@given(pieces.map("".join))
@settings(max_examples=2000)
@example("[")
@example("?&")
@example("u:p/x@h/d")
@example("u@tenant:p@h/d")
@example("u:1/x@h/d")
def test_a_uri_is_read_as_libpq_reads_it_or_refused(text):
    """Where the parser accepts a URI, libpq finds the same parameters in it."""
    uri = f"postgresql://{text}".strip()
    try:
        read = parse_uri(uri)
    except ValueError:
        return
    expected = libpq(uri)

    assert expected is not None
    if expected:
        if "ssl" in read:
            read["sslmode"] = {"true": "require"}[read.pop("ssl")]
        assert {name: value for name, value in read.items() if value} == expected


@pytest.mark.parametrize("place", ["{}:pw@host/name", "u:{}@host/name", "u:pw@{}/name", "u:pw@host/{}",
"u:pw@host:{}/name", "u:pw@host/name?password={}", "u:pw@host/name?{}=1", "u:pw@host/name?sslmode={}"])  # fmt: skip
@given(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=3).map("".join))
def test_a_refusal_repeats_no_part_of_the_uri(place, special):
    """A value with special characters, wherever it is in the URI, is refused without it or read as libpq reads it."""
    value = special.join(SECRETS)
    uri = f"postgresql://{place.format(value)}"
    read, shown = outcome(uri)

    assert not any(secret in shown for secret in SECRETS)
    if read:
        expected = libpq(uri) or {}
        assert (expected.get("user"), expected.get("password"), expected.get("dbname")) == read[:3]
        assert expected["host"] == read[3]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "PostgreSQL", "postgresql+asyncpg", "POSTGRES+psycopg2"])
def test_the_scheme_can_be_that_of_other_tools(scheme):
    """Its case, and the driver that SQLAlchemy adds, make no difference; nor does white space around the URI."""
    assert {"user": "u", "password": "p%w", "host": "h", "dbname": "d"} == parse_uri(f" {scheme}://u:p%25w@h/d \n")


@pytest.mark.parametrize("character", ["\n", "\t", "\0", "\x7f", " "])
def test_white_space_inside_of_a_uri_is_refused(character):
    """A URI that was broken into lines, or that has a space which is not escaped, is refused."""
    with pytest.raises(ValueError, match=r"^must be a URL like postgresql://"):
        parse_uri(f"postgresql://u:hun{character}ter@h/d")


@pytest.mark.parametrize("space", [" ", "  "])
@pytest.mark.parametrize(
    "place",
    ["{}u:p@h/d", "u{}:p@h/d", "u:{}p@h/d", "u:p{}@h/d", "u:p@{}h/d", "u:p@h{}/d", "u:p@h,{}i/d", "u:p@h:1{}/d",
     "u:p@h/{}d", "u:p@h/d{}?sslmode=require", "u@h/d?password={}p", "u@h/d?password=p{}&user=u", "u@h/d?user{}=u"],
)  # fmt: skip
def test_a_space_at_an_end_of_a_part_is_refused(place, space):
    """It may be meant, and libpq would ignore it. The sentence shows the escape."""
    with pytest.raises(ValueError, match=r"^must be a URL like .*%20 for a space"):
        parse_uri(f"postgresql://{place.format(space)}")


def test_an_escaped_space_at_an_end_of_a_part_is_kept():
    """And so is other white space, which has no meaning in a URL."""
    values = {"user": " u", "password": "p ", "host": "h", "dbname": " d "}
    assert values == parse_uri("postgresql://%20u:p%20@h/%20d%20")
    assert {"password": "p\xa0"}.items() <= parse_uri("postgresql://u:p\xa0@h/d").items()
