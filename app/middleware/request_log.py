"""The log line of each request."""

import logging
import os
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from starlette.types import Scope

from app.health import paths
from app.logs.request_fields import added_fields

_PATH_CHARACTERS: Final = 200


class RequestLog:
    """Writes `request_served` when a request has ended: of a probe at debug, of every other one at info."""

    def __init__(self, slot: str = "0") -> None:
        self._worker: dict[str, Any] = {"slot": slot}
        self._write: Callable[[bytes], None] | None = None
        self._debug_enabled = self._info_enabled = False

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
        is_probe = scope["path"] in paths.PROBES
        if not (self._debug_enabled if is_probe else self._info_enabled):
            return
        route = scope.get("route")
        client = scope.get("client")
        event: dict[str, Any] = {
            **self._worker,
            "event": "request_served",
            "method": scope["method"],
            "route": "none" if route is None else route.path,
            "path": scope["path"][:_PATH_CHARACTERS],
            "status": status,
            "duration_seconds": round(seconds, 6),
            "bytes": sent_bytes,
            "client": client and client[0],
            "request_id": ids[0],
            "trace_id": ids[1],
            **added_fields(scope["state"]),
        }
        if ids[2] is not None:
            event["span_id"] = ids[2]
        try:
            write(self._render(None, "debug" if is_probe else "info", event))
        except structlog.DropEvent:  # as every processor may raise
            return

    def _open(self) -> Callable[[bytes], None]:
        """Find the output at the first request, when logs are configured.

        The line's values are plain and contain no secret, so it is rendered by the last processor alone, without a
        logger: all processors together take several times as long.
        """
        config = structlog.get_config()
        self._render = config["processors"][-1]
        logger = structlog.wrap_logger(None, wrapper_class=config["wrapper_class"])
        self._debug_enabled = logger.is_enabled_for(logging.DEBUG)
        self._info_enabled = logger.is_enabled_for(logging.INFO)
        self._worker["pid"] = os.getpid()
        self._write = cast(Callable[[bytes], None], config["logger_factory"]().info)
        return self._write
