"""Turns an event into a line: the processors that structlog runs, in order."""

import select
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.logs.redaction import redact

LINE_BYTES: Final = select.PIPE_BUF
"""The longest JSON line. Several processes share one pipe, and only a write of at most this size is atomic."""

_FRAMES: Final = 12
"""How many frames of each exception are shown, from the innermost outwards."""

_SHORT_TEXT: Final = 64
"""A text with fewer characters is not shortened."""

_ELLIPSIS_BYTES: Final = len("…".encode())

_MAX_INTEGER: Final = 1 << 63

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE

current_request: ContextVar[tuple[str, str | None, str | None] | None] = ContextVar("current_request", default=None)
"""The ids of the current request, of its trace and of its span."""


def processors(format: str) -> list[Processor]:  # noqa: A002  # the setting's name
    """The processors for every event. The last one alone is enough for an event of plain values without secrets."""
    return [add_request, add_exception, redact_event, render_json if format == "json" else _ConsoleLine()]


def add_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the ids of the request in which the event happened."""
    request = current_request.get()
    if request is not None:
        event.setdefault("request_id", request[0])
        if request[1] is not None:
            event.setdefault("trace_id", request[1])
        if request[2] is not None:
            event.setdefault("span_id", request[2])
    return event


def add_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the text of the exception."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = "".join(traceback.format_exception(error, limit=-_FRAMES)).rstrip()
    return event


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove secrets."""
    clean: EventDict = redact(event)
    return clean


def render_json(_logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    """One JSON object on one line."""
    return render_line({"event": event.pop("event", ""), "level": method, "timestamp": datetime.now(UTC), **event})


def render_line(line: dict[str, Any]) -> bytes:
    """All fields of a line, in their order, as JSON."""
    try:
        rendered = orjson.dumps(line, default=str, option=_OPTIONS)
    except TypeError:  # It contains a lone surrogate, a number beyond 64 bits, or a key that is not a text.
        rendered = orjson.dumps(_plain(line), option=_OPTIONS)
    return rendered if len(rendered) <= LINE_BYTES else _shorten(_plain(line))


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """The line with every value that is not plain JSON converted to text."""
    return {str(key): value if _is_plain(value) else _text(value) for key, value in line.items()}


def _is_plain(value: object) -> bool:
    return (isinstance(value, int) and abs(value) < _MAX_INTEGER) or isinstance(value, float | datetime | None)


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _shorten(line: dict[str, Any]) -> bytes:
    """Shorten the longest text until the line fits: an exception at its beginning, other texts at their end."""
    line["truncated"] = True
    while (excess := len(rendered := orjson.dumps(line, option=_OPTIONS)) - LINE_BYTES) > 0:
        texts = {key: text for key, text in line.items() if isinstance(text, str)}
        key = max(texts, key=lambda name: len(texts[name]))
        text = texts[key]
        if len(text) < _SHORT_TEXT:  # There are too many fields; shortening texts does not help.
            return orjson.dumps(
                {name: line[name] for name in ("event", "level", "timestamp", "truncated")}, option=_OPTIONS
            )
        keep = max(len(text) - excess - _ELLIPSIS_BYTES, len(text) // 2)
        line[key] = f"…{text[-keep:]}" if key == "exception" else f"{text[:keep]}…"
    return rendered


class _ConsoleLine:
    """Renders one line for people, coloured on a terminal."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=sys.stdout is not None and sys.stdout.isatty())

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        exception = event.pop("exception", None)
        line: EventDict = {"timestamp": f"{datetime.now():%H:%M:%S.%f}"[:-3], "level": method}  # noqa: DTZ005
        line.update({str(key): _printable(value) for key, value in event.items()})
        text = self._render(logger, method, line)
        if exception is not None:
            text = f"{text}\n{exception}"
        return f"{text}\n".encode("utf-8", "replace")


def _printable(value: object) -> object:
    """The value, escaped if it contains control characters that a terminal would interpret. A number is a number.

    The renderer would show an enumeration's member, such as a status, by its name.
    """
    if isinstance(value, Enum) and isinstance(value, int | float | str):
        value = value.value
    text = str(value)
    return value if text.replace("\n", "").isprintable() else ascii(value)
