"""Lines that others write: the standard library's loggers, warnings, exceptions that nobody caught."""

import asyncio
import logging
import sys
import threading
from types import TracebackType
from typing import Any, Final

import structlog

log = structlog.get_logger("app")

_OWN_HANDLERS: Final = ("alembic", "gunicorn", "py.warnings", "sqlalchemy", "uvicorn")
"""Loggers that bring handlers of their own, whose lines would come twice or in another form."""


def adopt(threshold: int) -> None:
    """Take over all that is printed in this process, from `threshold` upwards."""
    root = logging.getLogger()
    root.handlers = [Adopted()]
    root.setLevel(threshold)
    for name in list(root.manager.loggerDict):
        if name.startswith(_OWN_HANDLERS):
            logger = logging.getLogger(name)
            logger.handlers = []
            logger.propagate = True
    # One line a request is enough, and ours knows more.
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
    # It tells at info which of its own parts it has loaded.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_failure
    sys.unraisablehook = _log_unraisable


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Log what fails in a task or callback of this loop that nobody awaits."""
    loop.set_exception_handler(_log_loop_failure)


class Adopted(logging.Handler):
    """Turns a record of the standard library into an event."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record, its message as the event."""
        try:
            event: dict[str, Any] = {"logger": record.name}
            if record.exc_info and record.exc_info[1] is not None:
                event["exc_info"] = record.exc_info
            level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
            log.log(level, record.getMessage(), **event)
        except Exception:  # noqa: BLE001  # a line that cannot be made must not stop who writes it
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
    log.error("task_failed", message=context.get("message"), exc_info=context.get("exception"))
