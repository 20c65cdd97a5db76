"""What has happened to the workers, counted by the master for whoever shows metrics."""

import json
import os
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from app.metrics.directory import EVENTS_FILE, VARIABLE


class Event(StrEnum):
    """Something that the master did or saw; a metric may show each as a counter."""

    STARTED = "started"
    """A worker was started, for whatever reason."""

    START_FAILED = "start_failed"
    """A worker ended before it served."""

    DIED = "died"
    """A worker ended that had served and was not told to stop."""

    TIMED_OUT = "timed_out"
    """A worker gave no sign of life for too long, and was killed."""

    RELOADED = "reloaded"
    """Configuration and code were read anew."""

    RELOAD_REFUSED = "reload_refused"
    """A reload found a configuration that cannot be read."""


class Events:
    """Counters that only grow while the master lives. They lie beside the workers' metrics, as one JSON object."""

    def __init__(self) -> None:
        self._counts = Counter[str](dict.fromkeys(Event, 0))

    def add(self, event: Event) -> None:
        """Count one more, and show it."""
        self._counts[event] += 1
        folder = os.environ.get(VARIABLE)
        # A full or read-only disk must not stop the master.
        with suppress(OSError):
            if folder:
                draft = Path(folder, f"{EVENTS_FILE}.{os.getpid()}")
                draft.write_text(json.dumps(self._counts))
                draft.replace(Path(folder, EVENTS_FILE))
