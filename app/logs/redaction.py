"""Removes secrets from log lines."""

import re
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

REDACTED: Final = "[redacted]"

_END_CHARACTERS: Final = 8_192
"""The number of characters kept at each end of a text. It bounds the time that the rules take."""

_NAME: Final = r"[\w-]{0,32}(?:password|passwd|pwd|secret|token|api[_-]?key)|dsn|database_url"

_HEADER: Final = r"(?:proxy-)?authorization|(?:set-)?cookie"

_BETWEEN: Final = r"""(?:["']?\s*[=:]\s*|["']\s*,\s*)"""
"""The text between a name and its value: `=`, `:`, or a comma in a tuple."""

_QUOTED: Final = r"""b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'"""

_SECRET_KEY: Final = re.compile(f"{_NAME}|{_HEADER}", re.IGNORECASE)

_RULES: Final = (
    # A database URL, entirely: up to the last @ of the line, because a password may contain any character, a space too.
    (re.compile(r"((?:postgres\w*|redis\w*)(?:\+\w+)?://)(?:[^\n]*@)?[^\s\"']*", re.IGNORECASE), rf"\1{REDACTED}"),
    # The user and password of any other URL, up to the last @ of its authority.
    (re.compile(r"//[^\s/?#]*@"), f"//{REDACTED}@"),
    # What is left of a URL in a library's message about a part of it: `invalid literal for int(): 'hunter2@db:5432'`.
    (re.compile(r"""(["'])[^"'\n]*@[^"'\n]*\1"""), rf"\1{REDACTED}\1"),
    # The same without an @: urllib's, asyncpg's and SQLAlchemy's messages about a port or a parameter.
    (
        re.compile(
            r"(Port could not be cast to integer value as |invalid literal for int\(\) with base 10: "
            r"|bad query field: |is expected to be one of .*, got ).*"
        ),
        rf"\1{REDACTED}",
    ),
    # `password=hunter2`, `"token": "abc"`, `(b'cookie', b'a=b')`, `Authorization: Bearer abc`.
    (re.compile(rf"""(\b(?:{_NAME}){_BETWEEN})(?:{_QUOTED}|\S+)""", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(rf"""(\b(?:{_HEADER}){_BETWEEN})(?:{_QUOTED}|[^\n"']+)""", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{REDACTED}"),
    # PostgreSQL's messages contain the refused row, SQLAlchemy's the parameters, Pydantic's the input.
    (
        re.compile(r"DETAIL:\s.*?(?=\s(?:HINT|CONTEXT):|\s\[SQL|\s\(Background|\n\n|\nTraceback|\Z)", re.DOTALL),
        f"DETAIL: {REDACTED}",
    ),
    (re.compile(r"\[parameters: .*?\](?=\n|\Z)", re.DOTALL), f"[parameters: {REDACTED}]"),
    (re.compile(r"input_value=.*?(?=, input_type=)", re.DOTALL), f"input_value={REDACTED}"),
)


def redact_text(text: str) -> str:
    """The text without passwords, tokens and echoed rows. A very long text is shortened in the middle."""
    if text.isalnum() or text.isidentifier():  # an id or an event name: every rule needs a punctuation character
        return text
    if len(text) > 2 * _END_CHARACTERS:
        text = f"{text[:_END_CHARACTERS]}…{text[-_END_CHARACTERS:]}"
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any) -> Any:
    """The value with all texts in it redacted. Values of keys that name a secret are replaced entirely.

    A value of another type becomes its text here: the JSON renderer would convert it after the redaction.
    """
    if value is None or isinstance(value, int | float | datetime):
        return value
    if isinstance(value, dict):
        return {_text(key): REDACTED if _names_secret(str(key)) else redact(inner) for key, inner in value.items()}
    if type(value) in {list, tuple}:  # not SQLAlchemy's URL, a tuple whose text hides the password
        return [redact(inner) for inner in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  # a value without a text must not stop its caller
        text = f"<{type(value).__name__}>"
    return redact_text(text)


@lru_cache
def _names_secret(key: str) -> bool:
    return _SECRET_KEY.fullmatch(key) is not None
