"""Counts what happens to the workers. The master counts, and the workers' metrics show it."""

import json
import os
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from app.metrics.directory import EVENTS_FILE, VARIABLE


class Event(StrEnum):
    """Something that the master did or saw. The metric `worker_events_total` has a series for each."""

    STARTED = "started"
    """A worker was started."""

    START_FAILED = "start_failed"
    """A worker ended before it served."""

    DIED = "died"
    """A worker ended that had served and was not asked to stop."""

    TIMED_OUT = "timed_out"
    """A worker gave no heartbeat for its timeout, and was killed."""

    RELOADED = "reloaded"
    """A reload has read configuration and code again."""

    RELOAD_REFUSED = "reload_refused"
    """A reload found a configuration that cannot be used."""


class Events:
    """Counters that only grow while the master lives. They are one JSON object in the metrics directory."""

    def __init__(self) -> None:
        self._counts = Counter[str](dict.fromkeys(Event, 0))

    def add(self, event: Event) -> None:
        """Count one more, and write the file."""
        self._counts[event] += 1
        folder = os.environ.get(VARIABLE)
        # A full or read-only disk must not stop the master.
        with suppress(OSError):
            if folder:
                draft = Path(folder, f"{EVENTS_FILE}.{os.getpid()}")
                draft.write_text(json.dumps(self._counts))
                draft.replace(Path(folder, EVENTS_FILE))
