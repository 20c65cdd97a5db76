import string
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.logs.redaction import redact, redact_text

SECRET = "hunter2-Zm9v"


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql://samples:{}@db:5432/samples",
        "redis://:{}@cache:6379/0 refused",
        "postgresql://samples:p@{}@db/samples",
        "postgresql://user@tenant:{}@host/db",
        "postgresql://samples:p@ss/{}@db/samples",
        "postgresql://samples:p ss {}?#[@db/samples",
        "PostgreSQL+asyncpg://samples:'{}\"@db/samples",
        "postgresql://db/samples?user=owner&sslpassword={}",
        "rediss://{}@cache:6379/0",
        "amqp://{}@broker//",
        "url='//samples:{}@db'",
        "Port could not be cast to integer value as '{}@db'",
        "connect(password='it\\'s {}', host='db')",
        "password=p;,&)]}}{} host=db",
        "connect(host='db', password='{}')",
        "password={} host=db",
        'PASSWORD = "two words {}"',
        "{{'access_token': '{}'}}",
        '{{"client_secret": "{}", "x": 1}}',
        "X-Api-Key: {}",
        "Authorization: Bearer {}",
        "(b'authorization', b'Basic {}')",
        "headers=[(b'cookie', b'session={}; b=c')]",
        "Cookie: a=b; session={}",
        "sent Bearer {}",
        "new row violates check\nDETAIL:  Failing row contains (1, {}, null).\nHINT:  none",
        "[SQL: INSERT INTO samples (name) VALUES ($1)]\n[parameters: ('{}', [1])]\n(Background on this error)",
        "1 validation error\nname\n  Input should be valid [type=string, input_value='{}', input_type=str]",
    ],
)
def test_a_secret_is_removed_from_a_text(text: str):
    """Passwords, tokens, credentials and echoed rows are removed from free text."""
    assert SECRET not in redact_text(text.format(SECRET))


@pytest.mark.parametrize(
    "text",
    [
        "GET http://127.0.0.1:8000/samples?page=1",
        "Listening at: http://0.0.0.0:8000 (17)",
        "password authentication failed for user owner",
        "connection to db:5432@primary failed",
        "HINT: try again",
    ],
)
def test_text_without_secrets_is_unchanged(text: str):
    """Text that only looks similar to a secret is kept."""
    assert text == redact_text(text)


def test_the_text_around_a_secret_is_kept():
    """The scheme of a database URL and the host of any other URL are still shown."""
    assert "refused: postgresql://[redacted] (3 times)" == redact_text("refused: postgresql://a:pw@db/b (3 times)")
    assert "GET https://[redacted]@issuer/keys" == redact_text("GET https://client:pw@issuer/keys")


@dataclass
class Configuration:
    """A value whose text contains a secret."""

    dsn: str


@pytest.mark.parametrize(
    "value",
    [
        OSError(f"cannot connect to postgresql://a:{SECRET}@b"),
        Configuration(f"postgresql://a:{SECRET}@b"),
        {f"postgresql://a:{SECRET}@b"},
        f"redis://:{SECRET}@b".encode(),
        {f"redis://:{SECRET}@b": 1},
        [(Path(f"password={SECRET}"),)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_secret_in_a_value_of_any_type_is_removed(value: object):
    """A value that the renderer would convert to text later is redacted as well."""
    assert SECRET not in str(redact({"value": value}))


def test_a_value_without_a_text_is_named_by_its_type():
    """A value that cannot be converted to text does not stop the log call."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError

    assert {"value": "<Broken>"} == redact({"value": Broken()})


user_names = st.text(alphabet="abAB.-_%:@", min_size=1, max_size=8)
passwords = st.text(alphabet=string.ascii_letters + "/?#[]@:% '\"<>&=;,\\", max_size=8)


@given(user_names, passwords, passwords, st.sampled_from(["postgresql", "postgres", "postgresql+asyncpg", "rediss"]))
def test_no_part_of_a_database_url_is_logged(user: str, before: str, after: str, scheme: str):
    """Whatever characters surround it, the password of a URL is removed, raw or percent-encoded."""
    for password in (f"{before}{SECRET}{after}", quote(f"{before}{SECRET}{after}", safe="")):
        text = redact_text(f"ValueError: invalid URL {scheme}://{user}:{password}@host-name/database-name is wrong")
        assert SECRET not in text
        assert "host-name" not in text
        assert "database-name" not in text


def test_values_with_secret_names_are_replaced_entirely():
    """The value of a field whose name is that of a secret is replaced, at any depth."""
    assert {"a": [{"password": "[redacted]"}], "Authorization": "[redacted]", "n": 1} == redact(
        {"a": ({"password": SECRET},), "Authorization": SECRET, "n": 1}
    )


def test_a_very_long_text_is_shortened_in_the_middle():
    """The beginning and the end of the text are kept."""
    text = redact_text("begin " + "-" * 1_000_000 + " end")

    assert text.startswith("begin")
    assert text.endswith("end")
    assert len(text) < 20_000


@given(st.text(alphabet="ab:/@=\"' \n[]password", max_size=2_000))
def test_any_text_is_redacted_quickly(text: str):
    """No text makes the regular expressions backtrack for long."""
    redact_text(text * 3)
