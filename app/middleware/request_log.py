"""The log line of each request."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, cast

import structlog
from starlette.types import Scope
from structlog.typing import Processor

from app.health import paths
from app.logs.rendering import render_json, render_line
from app.logs.request_fields import ADDED_FIELDS

_PATH_CHARACTERS: Final = 200


class RequestLog:
    """Writes `request_served` when a request has ended: of a probe at debug, of every other one at info."""

    def __init__(self, slot: str = "0") -> None:
        self._slot = slot
        self._write: Callable[[bytes], None] | None = None

    def write(
        self, scope: Scope, ids: tuple[str, str | None, str | None], status: int, seconds: float, sent_bytes: int
    ) -> None:
        """Write the line of a request.

        Args:
            scope: The request's.
            ids: Those of the request, of its trace and of its span.
            status: That of the response.
            seconds: How long it took.
            sent_bytes: The size of the response's body.
        """
        write = self._write or self._open()
        path = scope["path"]
        level = "debug" if path in paths.PROBES else "info"
        if level not in self._levels:
            return
        route = scope.get("route")
        client = scope.get("client")
        line: dict[str, Any] = {
            "event": "request_served",
            "level": level,
            "timestamp": datetime.now(UTC),
            "slot": self._slot,
            "pid": self._pid,
            "method": scope["method"],
            "route": "none" if route is None else route.path,
            "path": path[:_PATH_CHARACTERS],
            "status": status,
            "duration_seconds": int(seconds * 1e6 + 0.5) / 1e6,  # `round` takes twice as long
            "bytes": sent_bytes,
            "client": client and client[0],
            "request_id": ids[0],
            "trace_id": ids[1],
        }
        if ADDED_FIELDS in scope["state"]:
            line.update(scope["state"][ADDED_FIELDS])
        if ids[2] is not None:
            line["span_id"] = ids[2]
        try:
            write(self._render(line))
        except structlog.DropEvent:  # as every processor may raise
            return

    def _open(self) -> Callable[[bytes], None]:
        """Find the output at the first request, when logs are configured.

        The line's values are plain and contain no secret, so it is rendered by the last processor alone, without a
        logger: all processors together take several times as long.
        """
        config = structlog.get_config()
        last = config["processors"][-1]
        self._render = render_line if last is render_json else partial(_rendered, last)
        logger = structlog.wrap_logger(None, wrapper_class=config["wrapper_class"])
        self._levels = {name for name in ("debug", "info") if logger.is_enabled_for(getattr(logging, name.upper()))}
        self._pid = os.getpid()
        self._write = cast(Callable[[bytes], None], config["logger_factory"]().info)
        return self._write


def _rendered(last: Processor, line: dict[str, Any]) -> bytes:
    """The line as another processor renders it, which adds the level and the time itself."""
    del line["timestamp"]
    return cast(bytes, last(None, line.pop("level"), line))
