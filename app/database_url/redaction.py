"""Removes the parts of a database URL from messages of servers, drivers and the operating system."""

import re
from collections.abc import Iterable
from typing import Final

GAP: Final = "…"
"""What stands in the place of something that was removed."""

_QUOTED: Final = re.compile('"[^"]*"|»[^»«]*«|«[^«»]*»|„[^„“”]*[“”]|“[^“”]*”|\u2018[^\u2018\u2019]*\u2019|「[^「」]*」')
"""What servers put around names, in the languages of PostgreSQL's messages. No part begins within another one, so that
the time does not grow with the square of the length."""

_MARKS: Final = '"»«„“”\u2018\u2019「」'

MAX_CHARACTERS: Final = 1000
"""A longer message is cut: a server may send megabytes."""

_SOCKET_ADDRESS: Final = re.compile(r" ?\('[^']*', \d+(?:, \d+)*\)")
"""How asyncio appends the address that it could not connect to."""

_WORDS: Final = {
    "a", "access", "and", "authentication", "connection", "database", "does", "exist", "failed", "for", "from", "host",
    "in", "is", "login", "no", "not", "of", "on", "or", "password", "permission", "port", "role", "server", "such",
    "the", "to", "too", "user",
}  # fmt: skip
"""Words of the messages themselves. Where one of them is also a part of the URL, a gap in its place would say so."""


def without_value(message: str) -> str:
    """The message without what stands between its first quotation mark and its last: a value may have some itself."""
    marks = [place for place, character in enumerate(message) if character in _MARKS]
    return f"{message[: marks[0] + 1]}{GAP}{message[marks[-1] :]}" if len(marks) > 1 else message


def _without_quoted(message: str) -> str:
    return _QUOTED.sub(lambda quoted: f"{quoted[0][0]}{GAP}{quoted[0][-1]}", message)


def redacted(message: str, *, names: Iterable[str], hosts: Iterable[tuple[str, int]]) -> str:
    """The message without these names and hosts, however it quotes them, and without all else that is quoted.

    A name is removed as a whole word only, so that `app` stays in `application_name`.
    """
    message = _SOCKET_ADDRESS.sub("", message[:MAX_CHARACTERS])
    patterns = {name: _as_word(re.escape(name)) for name in names if name.lower() not in _WORDS | {""}}
    for host, port in hosts:
        suffix = rf"\]?(?::{port}|/\.s\.PGSQL\.{port})?"
        if host.lower() not in _WORDS:
            patterns[host] = _as_word(rf"\[?(?i:{re.escape(host)}){suffix}")
        patterns[f"port {port}"] = rf"(?<=\bport ){port}\b"
    longest_first = sorted(patterns, key=len, reverse=True)
    if longest_first:
        message = re.sub("|".join(patterns[name] for name in longest_first), GAP, message)
    return _without_quoted(message)


def _as_word(pattern: str) -> str:
    """The pattern, where no letter, digit or `_` goes on at either end of what it matches."""
    return rf"(?<!\w(?=\w)){pattern}(?!(?<=\w)\w)"
