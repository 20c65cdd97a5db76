"""Counters of one process, in its memory."""

import threading
import time
from collections import OrderedDict
from typing import Final

from app.rate_limits.window import Decision, count_request, pack, remove_expired, remove_latest, unpack

MAX_KEYS: Final = 10_000
"""Keys that are kept: one for each client and quota, 350 bytes at most. A new key past this evicts the one that was
used least recently."""


class ProcessCounters:
    """Counts the requests of this process exactly. Nothing can make it fail."""

    def __init__(self) -> None:
        self._logs = OrderedDict[bytes, bytes]()
        # Synchronous handlers run in threads.
        self._lock = threading.Lock()

    def hit(self, key: bytes, limit: int, window: float, cost: int = 1, *, counted: int = 0) -> Decision:
        """Count a request, or refuse it. The arguments are those of `SharedMemoryCounters.hit`."""
        now = time.monotonic()
        with self._lock:
            packed = self._logs.get(key)
            decision, log = count_request(unpack(packed) if packed else (window, now), now, limit, cost, counted)
            if decision.admitted:
                if packed is None and len(self._logs) >= MAX_KEYS:
                    self._logs.popitem(last=False)
                self._logs[key] = pack(log)
                self._logs.move_to_end(key)
        return decision

    def undo_hit(self, key: bytes, cost: int = 1) -> None:
        """Remove a request that was counted here and then refused elsewhere."""
        with self._lock:
            if packed := self._logs.pop(key, None):
                log = remove_latest(unpack(packed), cost)
                if len(log) > 2:
                    self._logs[key] = pack(log)

    def read(self, key: bytes) -> tuple[float, int] | None:
        """The age in seconds of the oldest request in the window, and the number of requests in it."""
        now = time.monotonic()
        with self._lock:
            packed = self._logs.get(key)
        log = remove_expired(unpack(packed), now) if packed else ()
        return (now - log[2], int(sum(log[3::2]))) if len(log) > 2 else None

    def delete(self, key: bytes) -> None:
        """Delete the counter of one client."""
        with self._lock:
            self._logs.pop(key, None)

    def delete_all(self) -> None:
        """Delete all counters."""
        with self._lock:
            self._logs.clear()
