"""What receives the numbers of exported and dropped spans."""

from typing import Protocol


class SpanObserver(Protocol):
    """Receives the numbers of exported and dropped spans, for the metrics. Several threads call its methods."""

    def spans_exported(self, spans: int) -> None:
        """The collector has taken so many spans."""

    def spans_dropped(self, reason: str, spans: int) -> None:
        """So many spans were dropped: one of `DROP_REASONS` of the metrics."""
