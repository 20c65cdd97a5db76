"""What a connection may wait for, and for how long."""

import math
from enum import Enum, auto

from app.worker.limits import LINGER_SECONDS, PROBE_SECONDS, Limits


class Wait(Enum):
    """What a connection waits for. Each wait has a deadline, except `APPLICATION`."""

    FIRST_REQUEST = auto()
    """The first byte of the first request."""

    NEXT_REQUEST = auto()
    """The first byte of another request."""

    LAST_REQUEST = auto()
    """The same while the worker drains."""

    REST_OF_REQUEST = auto()
    """The rest of a request that has begun to arrive."""

    APPLICATION = auto()
    """The application, which answers a request or has not yet read what has arrived."""

    HALF_CLOSED = auto()
    """The application, while the client, which has closed its sending side, may be gone."""

    READER = auto()
    """The client must read some of what was written: the write buffer is full, or the connection closes."""

    CLOSE = auto()
    """The client must close: it has got everything."""


# On Python 3.11 it takes ten times as long to look up a member of an Enum as a global name.
FIRST_REQUEST, NEXT_REQUEST, LAST_REQUEST, REST_OF_REQUEST, APPLICATION, HALF_CLOSED, READER, CLOSE = Wait


def wait_seconds(wait: Wait, limits: Limits) -> float:
    """Return how long a wait may take."""
    if wait is APPLICATION:
        return math.inf
    if wait is NEXT_REQUEST:
        return limits.keep_alive_seconds
    if wait is HALF_CLOSED:
        return PROBE_SECONDS
    if wait is LAST_REQUEST or wait is CLOSE:
        return LINGER_SECONDS
    return limits.receive_seconds
