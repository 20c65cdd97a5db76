"""Everything that prints, as structlog events: one line each, on standard output."""

import logging
import sys

import structlog

from app.logs.foreign import adopt
from app.logs.foreign import watch as watch
from app.logs.output import Output
from app.logs.rendering import steps

output = Output()
"""Where the lines of this process go. It opens nothing before the first line."""


def configure(level: str = "info", format: str = "json", descriptor: int = 1) -> None:  # noqa: A002  # the setting's name
    """Make every line of this process one of ours: the application's, its libraries', warnings, uncaught exceptions.

    It may be called again, and is: by Gunicorn's configuration and by each worker.

    Args:
        level: The least severe line that is written.
        format: `json`, or `console` for people.
        descriptor: Where to write; 2 for a program whose standard output is its result.
    """
    # Started without it, Python has no such stream, and the number belongs to whatever was opened first.
    closed = {1: sys.__stdout__, 2: sys.__stderr__}.get(descriptor, sys) is None
    output.descriptor = -1 if closed else descriptor
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=steps(format),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    adopt(threshold)


def flush(timeout_seconds: float = 1.0) -> bool:
    """Wait until all lines so far are written; false when whoever reads them is too slow for that."""
    return output.flush(timeout_seconds)


def lines_dropped() -> int:
    """Lines of this process that were not written: they came faster than they were read."""
    return output.dropped
