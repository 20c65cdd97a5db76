"""Notices that writes hang, as commits do that wait for a synchronous standby, so that reads keep connections."""

from time import perf_counter
from typing import Final

from app.database.connection import Connection

LONG_SECONDS: Final = 1.0
"""A write that runs for longer may hang."""

FORGET_SECONDS: Final = 3.0
"""Writes hang until none has been long for this time. The writes in flight are ended together, and their successors
are not long at once."""


class HangingWrites:
    """The writes that run on one pool."""

    def __init__(self) -> None:
        self._started: dict[Connection, float] = {}
        """When the write on each connection began, the oldest first."""
        self._hang = False
        self._long_at = 0.0
        """When a write was last seen to be long."""

    def begin(self, connection: Connection) -> None:
        """A write begins on this connection."""
        self._started[connection] = perf_counter()

    def end(self, connection: Connection, *, succeeded: bool) -> None:
        """It has ended. A long one that has succeeded shows that writes do not hang any more.

        A short one shows nothing: it may have found nothing to write.
        """
        if perf_counter() - self._started.pop(connection) > LONG_SECONDS and succeeded:
            self._hang = False

    def hang(self, connections: int) -> bool:
        """Whether long writes use half of this many connections, or did, and writes have hung since then."""
        now = perf_counter()
        oldest = next(iter(self._started.values()), now)
        long = 0
        if now - oldest > LONG_SECONDS:
            long = len([started for started in self._started.values() if now - started > LONG_SECONDS])
            self._long_at = now
        if self._hang:
            self._hang = now - self._long_at < FORGET_SECONDS
        else:
            self._hang = long > 0 and 2 * long >= connections
        return self._hang
