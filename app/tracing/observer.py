"""Who is told what became of the spans."""

from typing import Protocol


class SpanObserver(Protocol):
    """Receives what became of the spans, for the metrics. Its methods are called in several threads."""

    def spans_exported(self, spans: int) -> None:
        """The collector has taken so many spans."""

    def spans_dropped(self, reason: str, spans: int) -> None:
        """So many spans were dropped: one of `DROP_REASONS` of the metrics."""
