"""Limits on one client connection: time, bytes and requests."""

from dataclasses import dataclass

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from app.worker.totals import Totals

MAX_HEAD_BYTES = 64 * 1024
"""The longest head: the request line and all header fields."""

MAX_TARGET_BYTES = 8 * 1024
"""The longest request target."""

MAX_HEADERS = 100
"""The most header fields."""

MAX_PIPELINED = 16
"""The most requests that may wait on one connection behind the one being answered."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""The most bytes that are read and discarded: chunk framing, trailers, a body after its response, and what
follows a refused request."""

LINGER_SECONDS = 2.0
"""How long a draining worker waits for the next request on an idle connection, and how long a
connection that is being closed waits for its client before it is aborted."""

PROBE_SECONDS = 0.4
"""How often a client that has closed its sending side is probed while the application answers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that an operator may change."""

    receive_seconds: float
    """One timeout for three waits. On a new connection the first request must begin in this time. A request
    must arrive completely in this time, counted from its first byte. When a response waits to be sent, the
    client must take some of it in this time."""

    keep_alive_seconds: float
    """How long a connection may be idle between two requests."""

    graceful_seconds: float
    """How long requests in flight may take while draining."""

    whole_body_bytes: int = HIGH_WATER_LIMIT
    """The application begins with a request whose body has at most this many bytes when it has arrived completely."""

    max_body_bytes: int = HIGH_WATER_LIMIT
    """How much of a body the application is assumed to keep in memory until it has answered."""

    max_connections: int
    """The most connections of one worker."""

    max_buffered_bytes: int
    """The most bytes of requests and unsent responses that one worker keeps in memory."""


class State(ServerState):
    """What the connections of one worker share."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.draining = False
        self.totals = Totals(
            self.connections,  # type: ignore[arg-type]
            max_connections=limits.max_connections,
            max_buffered_bytes=limits.max_buffered_bytes,
        )
