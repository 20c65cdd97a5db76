"""Log lines that other code writes: standard library loggers, warnings and uncaught exceptions."""

import asyncio
import logging
import socket
import sys
import threading
from types import TracebackType
from typing import Any, Final

import structlog

log = structlog.get_logger("app")

_LOGGERS_WITH_HANDLERS: Final = ("alembic", "gunicorn", "py.warnings", "sqlalchemy", "uvicorn")
"""Loggers that may have their own handlers. Their lines would appear twice, or in another format."""


def capture(threshold: int) -> None:
    """Turn all log records, warnings and uncaught exceptions of this process into events, from `threshold` upwards."""
    root = logging.getLogger()
    root.handlers = [EventHandler()]
    root.setLevel(threshold)
    for name in list(root.manager.loggerDict):
        if name.startswith(_LOGGERS_WITH_HANDLERS):
            logger = logging.getLogger(name)
            logger.handlers = []
            logger.propagate = True
    # `request_served` replaces Uvicorn's access log.
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
    # At info it logs each of Alembic's own plugins that it loads.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    # They log each request for the keys of the issuer, and each part of it. A failure is an event of its own.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its warnings are about what a client sends, such as a malformed tracestate, and about spans that are counted.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_failure
    sys.unraisablehook = _log_unraisable


def capture_loop_failures(loop: asyncio.AbstractEventLoop) -> None:
    """Log the exceptions of this loop's tasks and callbacks that no code awaits."""
    loop.set_exception_handler(_log_loop_failure)


class EventHandler(logging.Handler):
    """Turns a standard library log record into an event."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record; its message is the event."""
        try:
            event: dict[str, Any] = {"logger": record.name}
            if record.exc_info and record.exc_info[1] is not None:
                event["exc_info"] = record.exc_info
            level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
            log.log(level, record.getMessage(), **event)
        except Exception:  # noqa: BLE001  # a record that cannot be formatted must not stop its caller
            log.error("log_line_failed", logger=record.name)  # noqa: TRY400


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        log.warning("process_interrupted")
    else:
        log.critical("process_failed", exc_info=(kind, error, trace))


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not SystemExit:
        log.error("thread_failed", thread=failure.thread.name if failure.thread else None, exc_info=failure.exc_value)


def _log_unraisable(failure: Any) -> None:
    log.error("exception_unraisable", exc_info=failure.exc_value, place=failure.err_msg)


def _log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), socket.gaierror) and not isinstance(context.get("future"), asyncio.Task):
        # uvloop goes on looking up a host name after the attempt to connect has run out of time, and nobody awaits
        # the result any more. The code that connects reports the timeout.
        return
    log.error("task_failed", message=context.get("message"), exc_info=context.get("exception"))
