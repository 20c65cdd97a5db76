"""The worker events that Gunicorn's master counts."""

import json
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from app.metrics.directory import EVENTS_FILE


class MasterEvents(Collector):
    """Collects the master's counters: workers started, died and timed out, reloads and so on."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / EVENTS_FILE

    def collect(self) -> Iterator[Metric]:
        """The counters that the master wrote last."""
        family = CounterMetricFamily(
            "worker_events", "Workers started, died or timed out, and reloads, by event.", labels=["event"]
        )
        try:
            counts: dict[str, int] = json.loads(self._file.read_text())
        except (OSError, ValueError):  # before the first event, or on a full disk
            counts = {}
        for event, count in counts.items():
            family.add_metric([event], count)
        yield family
