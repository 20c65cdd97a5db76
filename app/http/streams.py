"""The streamed responses of one worker: how many may run, and whose turn it is to read."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from app.errors import StreamsBusyError

MAX_STREAMS: Final = 8
"""How many streams one worker sends at the same time."""

MAX_STREAMS_OF_CLIENT: Final = 2
"""How many of them go to one client."""


class Streams:
    """Limits the streams of a worker.

    All of them together read and render one chunk at a time, so that they use one connection of the worker and the
    event loop no longer than one stream alone does.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        """To be held while a chunk is read and rendered, and not while it is sent."""
        self._running = Counter[str]()

    @contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Count a stream of this client until the context ends.

        Raises:
            StreamsBusyError: This client, or all clients together, have as many as they may.
        """
        own = self._running[client]
        if own >= MAX_STREAMS_OF_CLIENT or self._running.total() >= MAX_STREAMS:
            raise StreamsBusyError(by_own_share=own >= MAX_STREAMS_OF_CLIENT)
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
