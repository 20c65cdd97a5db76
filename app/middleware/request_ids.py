"""The request id and the trace id of a request."""

import re
from random import getrandbits
from typing import Final

from app.middleware.header_fields import HeaderFields
from app.tracing.traceparent import parent_of

_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_ID_BYTES: Final = 12


def request_id_of(fields: HeaderFields) -> str:
    """The request's own id if it is valid, else a new one of 96 random bits."""
    given = fields.get(b"x-request-id")
    if given is not None and _ID.fullmatch(given[-1]):
        return given[-1].decode()
    # The id protects nothing, so it need not come from the kernel's generator.
    return getrandbits(8 * _ID_BYTES).to_bytes(_ID_BYTES).hex()  # nosec B311


def trace_id_of(fields: HeaderFields) -> str | None:
    """The trace id of a valid W3C `traceparent`."""
    given = fields.get(b"traceparent")
    parent = parent_of(given) if given is not None else None
    return parent and parent.trace_id
