"""The header fields that the middleware reads, collected in one pass over the headers of a request."""

from collections.abc import Callable, Iterable
from typing import Final

from starlette.types import Scope

from app.middleware import forwarded

HeaderFields = dict[bytes, list[bytes]]
"""The values of each field, in their order."""

Check = Callable[[Scope, HeaderFields], None]
"""Raises a `RequestError` to refuse a request."""

_READ: Final = frozenset({b"host", b"x-request-id", b"traceparent", *forwarded.HEADERS})


def read_fields(headers: Iterable[tuple[bytes, bytes]]) -> HeaderFields:
    """Return the fields of a request that the middleware reads."""
    fields: HeaderFields = {}
    for name, value in headers:
        if name in _READ:
            fields.setdefault(name, []).append(value)
    return fields
