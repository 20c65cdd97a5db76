"""What must not stand in a log line, whoever wrote the text."""

import re
from functools import lru_cache
from typing import Any, Final

REDACTED: Final = "[redacted]"

_END_CHARACTERS: Final = 8_192
"""What is kept of each end of a text. A line shows less, and the rules take their time."""

_NAME: Final = r"[\w-]{0,32}(?:password|passwd|pwd|secret|token|api[_-]?key)|dsn|database_url"

_HEADER: Final = r"(?:proxy-)?authorization|(?:set-)?cookie"

_BETWEEN: Final = r"""(?:["']?\s*[=:]\s*|["']\s*,\s*)"""
"""What stands between a name and its value: `=`, `:`, and in a tuple a comma."""

_QUOTED: Final = r"""b?"[^"]*"|b?'[^']*'"""

_SECRET_KEY: Final = re.compile(f"{_NAME}|{_HEADER}", re.IGNORECASE)

_RULES: Final = (
    # The password of a URL, up to the last @ of its authority.
    (re.compile(r"(://[^\s:/?#@]*):[^\s/?#]*@"), rf"\1:{REDACTED}@"),
    # `password=hunter2`, `"token": "abc"`, `(b'cookie', b'a=b')`, `Authorization: Bearer abc`.
    (re.compile(rf"""(\b(?:{_NAME}){_BETWEEN})(?:{_QUOTED}|[^\s"',;&)\]}}]+)""", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(rf"""(\b(?:{_HEADER}){_BETWEEN})(?:{_QUOTED}|[^\n"']+)""", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{REDACTED}"),
    # PostgreSQL repeats the row that it refused, SQLAlchemy the parameters, Pydantic the input.
    (
        re.compile(r"DETAIL:\s.*?(?=\s(?:HINT|CONTEXT):|\s\[SQL|\s\(Background|\n\n|\nTraceback|\Z)", re.DOTALL),
        f"DETAIL: {REDACTED}",
    ),
    (re.compile(r"\[parameters: .*?\](?=\n|\Z)", re.DOTALL), f"[parameters: {REDACTED}]"),
    (re.compile(r"input_value=.*?(?=, input_type=)", re.DOTALL), f"input_value={REDACTED}"),
)


def redact_text(text: str) -> str:
    """The text without passwords, tokens and echoed rows, and without the middle of a very long one."""
    if text.isalnum() or text.isidentifier():  # as ids and the names of events are: every rule wants a sign
        return text
    if len(text) > 2 * _END_CHARACTERS:
        text = f"{text[:_END_CHARACTERS]}…{text[-_END_CHARACTERS:]}"
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any) -> Any:
    """The value with every text in it redacted, and whole values under keys that name a secret."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {key: REDACTED if _names_secret(str(key)) else redact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    return value


@lru_cache
def _names_secret(key: str) -> bool:
    return _SECRET_KEY.fullmatch(key) is not None
