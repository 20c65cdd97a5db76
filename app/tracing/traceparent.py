"""The W3C header `traceparent`: the trace and the span of the caller."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_FORM: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Traceparent(NamedTuple):
    """What the caller says of its trace."""

    trace_id: str
    is_sampled: bool
    """Whether the caller traces this request."""


def parent_of(values: Sequence[bytes]) -> Traceparent | None:
    """The content of the header. None if it is invalid or occurs twice: W3C says to ignore it then."""
    match = _FORM.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more) or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    return Traceparent(trace_id.decode(), bool(int(flags, 16) & 1))
