"""All output of the process as structlog events: one line each, on standard output."""

import logging
import sys

import structlog

from app.logs.capture import capture
from app.logs.capture import capture_loop_failures as capture_loop_failures
from app.logs.output import Output
from app.logs.rendering import processors

output = Output()
"""Writes the log lines of this process. It opens nothing before the first line."""


def configure(level: str = "info", format: str = "json", descriptor: int = 1) -> None:  # noqa: A002  # the setting's name
    """Write all log lines of this process in one format: the application's, its libraries', warnings, exceptions.

    It can be called several times: Gunicorn's configuration calls it, and then each worker.

    Args:
        level: The lowest level that is written.
        format: `json`, or `console` for people.
        descriptor: The file descriptor to write to; 2 for a program whose result is on standard output.
    """
    # If the process was started without this stream, another file may have its number.
    closed = {1: sys.__stdout__, 2: sys.__stderr__}.get(descriptor, sys) is None
    output.descriptor = -1 if closed else descriptor
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=processors(format),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    capture(threshold)


def flush(timeout_seconds: float = 1.0) -> bool:
    """Wait until all lines are written. False when the timeout passes first."""
    return output.flush(timeout_seconds)


def backlog_bytes() -> int:
    """The bytes of this process' log lines that wait to be written."""
    return output.backlog_bytes


def lines_dropped() -> int:
    """The number of lines of this process that were dropped because the reader was too slow or gone."""
    return output.dropped
