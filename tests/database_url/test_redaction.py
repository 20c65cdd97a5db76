"""No part of a URL is in a message that is shown, and the rest of the message is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.database_url import DatabaseUrl
from app.database_url.redaction import GAP, MAX_CHARACTERS, without_value

URL = DatabaseUrl.parse(
    "postgresql://tenantuser:hunter2@db.tenant.example:6543,[fd00::7]:5433,10.1.2.3/tenantdb"
    "?options=-csearch_path%3Dtenantschema",
    {},
)
PARTS = ("tenantuser", "hunter2", "tenantdb", "tenant.example", "6543", "5433", "fd00::7", "10.1.2.3", "tenantschema")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no such database: tenantdb", "no such database: …"),
        ("no such user: tenantuser", "no such user: …"),
        ('role "tenantuser" does not exist', 'role "…" does not exist'),
        ("Rolle »tenantuser« existiert nicht", "Rolle »…« existiert nicht"),
        ("la base de données « tenantdb » n'existe pas", "la base de données «…» n'existe pas"),
        ("Datenbank „tenantdb“ fehlt, und “tenantuser” auch", "Datenbank „…“ fehlt, und “…” auch"),
        ("数据库 “tenantdb” 不存在", "数据库 “…” 不存在"),
        ("bad pair tenantdb/tenantuser@db.tenant.example:6543", "bad pair …/…@…"),
        ("[Errno 111] Connect call failed ('10.1.2.3', 5432)", "[Errno 111] Connect call failed"),
        ("[Errno 111] Connect call failed ('fd00::9', 5433, 0, 0)", "[Errno 111] Connect call failed"),
        ("certificate is not valid for 'DB.Tenant.example'", "certificate is not valid for '…'"),
        ("refused by [fd00::7]:5433 and by 10.1.2.3:5432", "refused by … and by …"),
        ("server at db.tenant.example, port 6543 failed", "server at …, port … failed"),
        ("invalid command-line argument: -csearch_path=tenantschema", "invalid command-line argument: …"),
        ('no entry for host "172.17.0.1", user "tenantuser"', 'no entry for host "…", user "…"'),
        ("you sent hunter2", "you sent …"),
    ],
)
def test_a_message_is_shown_without_the_parts_of_the_url(message, shown):
    """Whatever quotes them, also in other languages, and where nothing does."""
    assert shown == URL.redact(message)
    assert not [part for part in PARTS if part in URL.redact(message).lower()]
    assert shown == URL.redact(shown)


@pytest.mark.parametrize(
    ("url", "message", "shown"),
    [
        ("app:a@h/p", "application_name of my_app: the app has a", "application_name of my_app: the … has a"),
        ("u:pass@h/d", "password authentication failed, passed", "password authentication failed, passed"),
        (
            "u:password@h/d",
            'password authentication failed for user "u"',
            'password authentication failed for user "…"',
        ),
        ("user:role@host/database", 'role "role" of database "user"', 'role "…" of database "…"'),
        ("pg:p@h/d", "rejected by pg_hba.conf", "rejected by pg_hba.conf"),
        ("u@10.0.0.1/d", "10.0.0.11 and 110.0.0.1", "10.0.0.11 and 110.0.0.1"),
        ("u@%2Frun%2Fpg/d", "no socket /run/pg/.s.PGSQL.5432 in /run/pgbouncer", "no socket … in /run/pgbouncer"),
        ("u:%28%5B.%2A@h/d", "sent ([.* and .*", "sent … and .*"),
    ],
)
def test_other_words_stay(url, message, shown):
    """A part of the URL is removed as a whole word, and a word of the messages themselves only in quotation marks."""
    assert shown == DatabaseUrl.parse(f"postgresql://{url}", {}).redact(message)


words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_characters="\x7f"), min_size=9)


@given(words, words, words)
def test_no_name_is_left_whatever_its_characters(user, password, database):
    """In any quotation marks, and without."""
    escaped = ["".join(f"%{byte:02X}" for byte in part.encode()) for part in (user, password, database)]
    url = DatabaseUrl.parse("postgresql://{}:{}@h/{}".format(*escaped), {})

    for quoted in ("{}", '"{}"', "»{}«", "«{}»", "„{}“", "'{}'", ": {}."):
        shown = url.redact(" of ".join(quoted.format(part) for part in (user, password, database)))
        assert not [part for part in (user, password, database) if part in shown]


def test_a_long_message_is_cut():
    """A server that only pretends to be PostgreSQL may send one."""
    assert MAX_CHARACTERS + len(GAP) >= len(URL.redact("„" * 1_000_000))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('invalid input syntax for type uuid: "a"secret"b"', 'invalid input syntax for type uuid: "…"'),
        ("ungültige Eingabesyntax: »sec»ret«", "ungültige Eingabesyntax: »…«"),
        ("value too long", "value too long"),
        ('one " alone', 'one " alone'),
    ],
)
def test_a_value_with_quotation_marks_is_removed_as_a_whole(message, shown):
    """PostgreSQL does not escape them."""
    assert shown == without_value(message)
