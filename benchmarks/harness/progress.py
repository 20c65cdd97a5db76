"""Shows how far a run is, on standard error."""

import sys
import time

_WIDTH = 30


class Progress:
    """A bar on a terminal, elsewhere a line for every tenth part."""

    def __init__(self, question: str, steps: int) -> None:
        self._question = question
        self._steps = steps
        self._done = 0
        self._told = -1
        self._started = time.monotonic()

    def step(self, what: str) -> None:
        """Say what is done next."""
        tenth = self._done * 10 // self._steps
        if sys.stderr.isatty():
            filled = self._done * _WIDTH // self._steps
            bar = "█" * filled + "░" * (_WIDTH - filled)
            print(f"\r\033[K{self._question:15} {bar} {what}", end="", file=sys.stderr, flush=True)
        elif tenth > self._told:
            print(f"{self._question}: {tenth * 10} %, {what}", file=sys.stderr, flush=True)
        self._told = tenth
        self._done += 1

    def end(self) -> None:
        """Say that it is done."""
        lead = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{lead}{self._question}: done in {time.monotonic() - self._started:.0f} s", file=sys.stderr, flush=True)
