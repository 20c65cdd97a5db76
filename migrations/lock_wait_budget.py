"""How long a migration may wait in all."""


class LockWaitBudget:
    """The time that a migration may still spend waiting: for locks, for a connection, and between its attempts.

    The time in which its statements run is never subtracted, however long a build takes.
    """

    def __init__(self, seconds: float) -> None:
        self.remaining_seconds = seconds

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return self.remaining_seconds <= 0

    def subtract(self, seconds: float) -> None:
        """Subtract the time of a wait."""
        self.remaining_seconds -= seconds
