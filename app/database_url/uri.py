"""Reads a PostgreSQL URI as libpq does: see `conninfo_uri_parse_options` in its fe-connect.c."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

FORM: Final = "must be a URL like postgresql://user:password@host:5432/name"

ESCAPES: Final = (
    f"{FORM}, with %25 for %, %40 for @, %3A for :, %2F for /, %3F for ?, %26 for & and %20 for a space "
    "inside of its parts, such as the password"
)

PARAMETERS: Final = "must have parameters behind ? that are written like sslmode=require&connect_timeout=2"

PARAMETER_NAME: Final = re.compile(r"[a-z_]{1,40}", re.IGNORECASE)
"""What a refusal may repeat. Anything else could be a part of a password."""

_SCHEME: Final = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9]+)?://", re.IGNORECASE)
"""That of libpq in any case, also with the name of a driver, as SQLAlchemy writes it."""

_PARTS: Final = re.compile(
    r"(?:(?P<credentials>[^@/?]*)@)?(?P<servers>[^@/?]*)(?:/(?P<name>[^@?]*))?(?:\?(?P<query>[^@]*))?"
)
"""An `@` stands once, before the servers. Anywhere else it is a part of a password that is not escaped,
and libpq would take the password's other part for a server, a port or a database."""

_SERVER: Final = re.compile(r"(?:\[(?P<address>[^]]+)\]|(?P<host>[^][:]*))(?::(?P<port>.*))?")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_MALFORMED_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


def parse_uri(text: str) -> dict[str, str]:
    """The parameters that the URI sets, by libpq's names for them.

    Raises:
        ValueError: The URI is malformed or ambiguous. The message says what to write, and repeats nothing of it.
    """
    text = text.strip()  # as the end of a file has it; inside, white space is a part of a value
    scheme = _SCHEME.match(text)
    if scheme is None or _CONTROL.search(text):
        raise ValueError(FORM)
    parts = _PARTS.fullmatch(text, scheme.end())
    if parts is None:
        raise ValueError(ESCAPES)
    user, _, password = (parts["credentials"] or "").partition(":")
    hosts, ports = _servers(parts["servers"])
    values = {"user": user, "password": password, "host": hosts, "port": ports, "dbname": parts["name"] or ""}
    written = {name: _decode(value) for name, value in values.items() if value}
    parameters = _query(parts["query"] or "")
    for name in ("user", "password", "dbname"):
        if name in written and parameters.get(name, written[name]) != written[name]:
            raise ValueError(f"must not have the parameter {name} with another value than before the ?: leave one out")
    return written | parameters


def _servers(text: str) -> tuple[str, str]:
    """The hosts, and the ports in the same order, each separated by commas."""
    servers = [_SERVER.fullmatch(server) for server in text.split(",")]
    if not all(servers):
        raise ValueError(f"{FORM}, with an IPv6 address in brackets as in [::1]:5432")
    found = [server for server in servers if server]
    return ",".join(s["address"] or s["host"] or "" for s in found), ",".join(s["port"] or "" for s in found)


def _query(text: str) -> dict[str, str]:
    """The parameters behind the question mark. libpq would take the last of the same name."""
    pairs = text.split("&") if text else []
    if len(pairs) > 1 and not pairs[-1]:
        pairs.pop()
    values: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if pair.count("=") != 1:
            raise ValueError(f"{FORM}?sslmode=require, with one = in each parameter and %3D for = inside of a value")
        name, value = _decode(name), _decode(value)
        if values.setdefault(name, value) != value:
            named = f"must not have the parameter {name} twice with different values: leave one out"
            raise ValueError(named if PARAMETER_NAME.fullmatch(name) else PARAMETERS)
    return values


def _decode(text: str) -> str:
    """The text without its %-escapes. A space is refused also at an end, where libpq ignores it: it may be meant."""
    if " " in text or _MALFORMED_ESCAPE.search(text):
        raise ValueError(ESCAPES)
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise ValueError(f"{ESCAPES}, and in UTF-8") from None
