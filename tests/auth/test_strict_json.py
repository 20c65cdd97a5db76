import pytest

from app.auth.strict_json import parse_object


def test_an_object_is_read():
    """Members of any kind are returned."""
    assert {"a": [1, 2.5, None, {"b": "ü"}]} == parse_object('{"a": [1, 2.5, null, {"b": "ü"}]}'.encode())


@pytest.mark.parametrize(
    "document",
    [
        b'{"a": 1, "a": 2}',
        b'{"x": {"a": 1, "a": 1}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b"[]",
        b'"a"',
        b"",
        b"{",
        b'{"a": 1} {}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xff"}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_has_two_readings_is_refused(document):
    """The message has nothing of the text."""
    with pytest.raises(ValueError, match=r"^it (is|has) [a-zA-Z \-0-9]+$"):
        parse_object(document)
