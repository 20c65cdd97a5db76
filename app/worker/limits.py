"""What one connection may take: time, bytes and requests."""

from dataclasses import dataclass

from uvicorn.server import ServerState

MAX_HEAD_BYTES = 64 * 1024
"""The longest head: the request line and all header fields."""

MAX_TARGET_BYTES = 8 * 1024
"""The longest request target."""

MAX_HEADERS = 100
"""The most header fields."""

MAX_PIPELINED = 16
"""The most requests that may wait on one connection behind the one being answered."""

MAX_UNWANTED_BYTES = 1024 * 1024
"""The most bytes read for nothing: chunk framing, trailers, a body after its answer, what follows a refusal."""

LINGER_SECONDS = 2.0
"""How long a draining worker waits for the next request on an idle connection, and how long a
refused client may go on sending before the connection is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The times that an operator may change, in seconds."""

    receive_seconds: float
    """A request must have arrived, a new connection have begun one, and some of a waiting answer have been taken."""

    keep_alive_seconds: float
    """An idle connection's life."""

    graceful_seconds: float
    """How long requests in flight may take while draining."""


class State(ServerState):
    """What the connections of one worker share."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.draining = False
