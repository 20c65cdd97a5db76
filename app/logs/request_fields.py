"""The fields of the `request_served` line, and how a handler or a dependency adds its own."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import HTTPConnection

OWN_FIELDS: Final = frozenset({
    "event", "level", "timestamp", "method", "route", "path", "status", "duration_seconds", "bytes", "client",
    "request_id", "trace_id", "span_id", "slot", "pid",
})  # fmt: skip
"""The fields of every line."""

_OF_PRINCIPAL: Final = frozenset({"subject", "client_id", "token_refused"})
"""The fields that only authentication sets, so that no handler can name another sender."""

_RESERVED: Final = OWN_FIELDS | _OF_PRINCIPAL | {"self"}

MAX_FIELDS: Final = 16
"""The most fields that one request can add."""

MAX_CHARACTERS: Final = 200
"""A longer text is shortened to this."""

ADDED_FIELDS: Final = "log_fields"
"""The key of the fields that were added to a request, in its state. Absent if there are none."""


def add_log_fields(request: HTTPConnection, /, **fields: str | float | bool | None) -> None:
    """Add fields to the line that is written when the request has ended. A later value replaces an earlier one.

    A value must not be a secret, and not personal data that the log may not have.

    Raises:
        ValueError: The line has a field of this name already, or there are too many.
    """
    if taken := fields.keys() & _RESERVED:
        raise ValueError(f"request_served has these fields already: {', '.join(sorted(taken))}")
    added = request.scope["state"].setdefault(ADDED_FIELDS, {})
    if len(added.keys() | fields.keys()) > MAX_FIELDS:
        raise ValueError(f"A request can add {MAX_FIELDS} fields to its line")
    for name, value in fields.items():
        added[name] = value[:MAX_CHARACTERS] if isinstance(value, str) else value


def set_principal_fields(state: dict[str, Any], fields: Mapping[str, str | float | bool | None]) -> None:
    """Begin the added fields with what authentication has found: who sends the request, or why its token is refused."""
    state[ADDED_FIELDS] = dict(fields)
