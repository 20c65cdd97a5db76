"""Fields that a handler or a dependency adds to the `request_served` line of its request."""

from typing import Final

from fastapi import Request

from app.middleware.request_log import ADDED_FIELDS, OWN_FIELDS

MAX_FIELDS: Final = 16
"""The most fields that one request can add."""

MAX_CHARACTERS: Final = 200
"""A longer text is shortened to this."""


def add_log_fields(request: Request, **fields: str | float | bool | None) -> None:
    """Add fields to the line that is written when the request has ended. A later value replaces an earlier one.

    A value must not be a secret, and not personal data that the log may not have.

    Raises:
        ValueError: A field has the name of one that the line has already, or there are too many.
    """
    if taken := fields.keys() & OWN_FIELDS:
        raise ValueError(f"request_served has these fields already: {', '.join(sorted(taken))}")
    added = request.scope["state"].setdefault(ADDED_FIELDS, {})
    if len(added.keys() | fields.keys()) > MAX_FIELDS:
        raise ValueError(f"A request can add {MAX_FIELDS} fields to its line")
    for name, value in fields.items():
        added[name] = value[:MAX_CHARACTERS] if isinstance(value, str) else value
