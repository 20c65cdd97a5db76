"""Shows the progress of a run on standard error."""

import sys
import time

_WIDTH = 30


class Progress:
    """A bar on a terminal; otherwise a line for each 10 %."""

    def __init__(self, question: str, steps: int) -> None:
        self._question = question
        self._steps = steps
        self._done = 0
        self._last_tenth = -1
        self._started = time.monotonic()

    def step(self, what: str) -> None:
        """Show the next step."""
        tenth = self._done * 10 // self._steps
        if sys.stderr.isatty():
            filled = self._done * _WIDTH // self._steps
            bar = "█" * filled + "░" * (_WIDTH - filled)
            print(f"\r\033[K{self._question:15} {bar} {what}", end="", file=sys.stderr, flush=True)
        elif tenth > self._last_tenth:
            print(f"{self._question}: {tenth * 10} %, {what}", file=sys.stderr, flush=True)
        self._last_tenth = tenth
        self._done += 1

    def end(self) -> None:
        """Show that the run is complete."""
        lead = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{lead}{self._question}: done in {time.monotonic() - self._started:.0f} s", file=sys.stderr, flush=True)
