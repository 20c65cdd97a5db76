"""The request id, the trace id, and one log line for each request."""

import logging
import os
import re
from collections.abc import Sequence
from random import getrandbits
from time import perf_counter
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.health import paths
from app.logs.rendering import current_request
from app.logs.request_fields import added_fields
from app.middleware.forwarded import ForwardedCheck
from app.middleware.problems import MEDIA_TYPE, internal_error_body
from app.middleware.response_headers import ResponseHeaders
from app.middleware.response_recorder import ResponseRecorder
from app.state_keys import STREAM_CUT

_PATH_CHARACTERS: Final = 200
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")

log = structlog.get_logger(__name__)


class RequestLog:
    """Gives each request an id, and writes `request_served` when it has ended.

    Every response passes it, so every response has an id, a log line, the
    headers of the rate limit and the `ResponseHeaders`.
    """

    def __init__(
        self,
        app: ASGIApp,
        resources: Sequence[str] = (),
        forwarded: ForwardedCheck | None = None,
        slot: str = "0",
    ) -> None:
        self.app = app
        self._slot = slot
        self._forwarded = forwarded
        self._headers = ResponseHeaders(resources)
        self._log: Any = None
        self._debug_enabled = self._info_enabled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its ids in all log lines, then write its own line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, trace_id, is_forwarded = _identify(scope)
        if is_forwarded and self._forwarded is not None:
            self._forwarded.check(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        token = current_request.set((request_id, trace_id))
        header = (b"x-request-id", request_id.encode())
        path = scope["path"]  # the one that was received: `RootPath` changes it while the route responds

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                missing = self._headers.missing(path, headers)
                message["headers"] = [*headers, header, *state.get("rate_limit_headers", ()), *missing]
            await send(message)

        recorder = ResponseRecorder(receive, send_named)
        crashed = False
        started = perf_counter()
        try:
            await self.app(scope, recorder.receive, recorder.send)
        except Exception as error:  # there is no outer middleware that could answer
            crashed = True
            log.exception("request_crashed", exc_info=error)
            if recorder.can_respond:
                await _send_internal_error(recorder.send, request_id)
        finally:
            status = 500 if crashed else state.get(STREAM_CUT, recorder.status)
            self._write(scope, status, perf_counter() - started, recorder.sent_bytes)
            current_request.reset(token)

    def _write(self, scope: Scope, status: int, seconds: float, sent: int) -> None:
        log = self._log or self._create_logger()
        is_probe = scope["path"] in paths.PROBES
        if not (self._debug_enabled if is_probe else self._info_enabled):
            return
        route = scope.get("route")
        client = scope.get("client")
        request_id, trace_id = current_request.get() or ("", None)
        write = log.debug if is_probe else log.info
        write(
            "request_served",
            method=scope["method"],
            route="none" if route is None else route.path,
            path=scope["path"][:_PATH_CHARACTERS],
            status=status,
            duration_seconds=round(seconds, 6),
            bytes=sent,
            client=client and client[0],
            request_id=request_id,
            trace_id=trace_id,
            **added_fields(scope["state"]),
        )

    def _create_logger(self) -> Any:
        """Create the logger at the first request, when logs are configured.

        Its values are plain and contain no secret, so it uses the last processor
        alone: all processors together take several times as long.
        """
        config = structlog.get_config()
        self._log = structlog.wrap_logger(
            config["logger_factory"](),
            processors=config["processors"][-1:],
            wrapper_class=config["wrapper_class"],
        ).bind(slot=self._slot, pid=os.getpid())
        self._debug_enabled = self._log.is_enabled_for(logging.DEBUG)
        self._info_enabled = self._log.is_enabled_for(logging.INFO)
        return self._log


def _identify(scope: Scope) -> tuple[str, str | None, bool]:
    """The request id, from the request's header or a new one, the trace id, and whether there is an X-Forwarded-For."""
    given = traceparent = None
    traceparents = 0
    is_forwarded = False
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value
        elif name == b"traceparent":
            traceparent = value
            traceparents += 1
        elif name == b"x-forwarded-for":
            is_forwarded = True
    request_id = given.decode() if given is not None and _ID.fullmatch(given) else _new_id()
    trace_id = _trace_id(traceparent) if traceparent is not None and traceparents == 1 else None
    return request_id, trace_id, is_forwarded


def _new_id() -> str:
    """96 random bits. The id protects nothing, so it need not come from the kernel's generator."""
    return f"{getrandbits(96):024x}"  # nosec B311


def _trace_id(traceparent: bytes) -> str | None:
    """The trace id of a valid W3C `traceparent`. An invalid one is ignored."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, parent_id, more = match.groups()
    if version == b"ff" or (version == b"00" and more) or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    text: str = trace_id.decode()
    return text


async def _send_internal_error(send: Send, request_id: str) -> None:
    """Answer an exception that `Problems` did not answer, such as one of its own."""
    body = internal_error_body(request_id)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
