"""How long a migration may wait for locks in all."""

import time


class LockWaitBudget:
    """The time that a migration may still spend waiting for locks.

    Only failed attempts and the pauses between attempts are subtracted. An attempt that
    succeeds costs nothing, however long it takes.
    """

    def __init__(self, seconds: float) -> None:
        self.remaining_seconds = seconds
        self._started = time.monotonic()

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return self.remaining_seconds <= 0

    def start(self) -> None:
        """Start an attempt or a pause."""
        self._started = time.monotonic()

    def subtract_elapsed(self) -> None:
        """Subtract the time since the start, and start again."""
        self.remaining_seconds -= time.monotonic() - self._started
        self.start()
