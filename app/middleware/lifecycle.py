"""What happens to each request, in order, from its id to its log line. The parts are in the other modules here."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ShuttingDownError
from app.logs.rendering import current_request
from app.middleware import problems, response_recorder
from app.middleware.forwarded import HEADERS, Forwarded
from app.middleware.head import answer_head
from app.middleware.header_fields import Check, read_fields
from app.middleware.rate_limit import RateLimit
from app.middleware.request_ids import request_id_of, trace_id_of
from app.middleware.request_log import RequestLog
from app.middleware.request_metrics import RequestMetrics
from app.middleware.response_headers import ResponseHeaders
from app.middleware.response_recorder import ResponseRecorder
from app.state_keys import (
    CLIENT_DISCONNECTED,
    FAILURE_CODE,
    HEADER_FIELDS,
    STREAM_BEGAN,
    STREAM_CUT,
    TRACE,
    WHOLE_RESPONSE,
)

_BODILESS: Final = frozenset({204, 304})
"""The statuses whose response has no body, whatever the application sends."""

_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

log = structlog.get_logger(__name__)


class Lifecycle:
    """Answers a request in eight steps.

    1. It gets its id, and counts as in progress.
    2. Authentication, where it is on, finds out who sends it.
    3. It is counted against the quota of its client. Reading a probe is not.
    4. Its target, its host and its port are checked.
    5. The application answers it: HEAD as GET, without the body.
    6. An exception in steps 2 to 5 is answered with a problem document.
    7. The response gets the headers that every response has.
    8. The request is counted and timed, and its line is written.

    They are one middleware, because each one of its own would wrap `send` and read the headers again.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: RequestLog,
        metrics: RequestMetrics,
        headers: ResponseHeaders,
        forwarded: Forwarded | None = None,
        authentication: Callable[[ASGIApp], ASGIApp] | None = None,
        rate_limit: RateLimit | None = None,
        checks: Sequence[Check] = (),
    ) -> None:
        """Wrap an application. The parts that are left out do not apply to the answers to refused requests."""
        self._app = app
        self._log = log
        self._metrics = metrics
        self._headers = headers
        self._forwarded = forwarded
        self._rate_limit = rate_limit
        self._checks = checks
        self._authenticated = authentication(self._admitted) if authentication else self._admitted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, count it and log it. Steps 1 and 8, and an exception that no step has answered."""
        if scope["type"] != "http":
            await self._authenticated(scope, receive, send)
            return
        fields = read_fields(scope["headers"])
        if self._forwarded is not None and not fields.keys().isdisjoint(HEADERS):
            await self._forwarded.apply(scope)
        state = scope.setdefault("state", {})
        trace_id, span_id = state.get(TRACE) or (trace_id_of(fields), None)
        ids = request_id_of(fields), trace_id, span_id
        state[HEADER_FIELDS] = fields
        state["request_id"] = ids[0]
        response = ResponseRecorder(receive, send, scope, self._headers)
        crashed = False
        passed_on = response.send
        if state.get(WHOLE_RESPONSE) is send:
            state[WHOLE_RESPONSE] = passed_on
        token = current_request.set(ids)
        self._metrics.begin()
        started = perf_counter()
        try:
            try:
                await self._authenticated(scope, response.receive, passed_on)
            except BaseException as error:  # noqa: BLE001  # it is answered or raised again
                await self._answer_failure(scope, response, error)
        except Exception as error:  # there is no outer middleware that could answer
            crashed = True
            state[FAILURE_CODE] = problems.INTERNAL_ERROR_CODE
            log.exception("request_crashed", exc_info=error)
            if response.can_respond:
                await problems.internal_error(ids[0])(scope, receive, response.send)
        finally:
            ended = perf_counter()
            status = 500 if crashed else state.get(STREAM_CUT, response.status)
            try:
                # A stream is timed until its head is sent: how long the rest takes depends on its client.
                self._metrics.end(scope, status, state.get(STREAM_BEGAN, ended) - started)
            finally:
                has_body = status not in _BODILESS and scope["method"] != "HEAD"
                self._log.write(scope, ids, status, ended - started, response.sent_bytes if has_body else 0)
                current_request.reset(token)

    async def _answer_failure(self, scope: Scope, response: ResponseRecorder, error: BaseException) -> None:
        """Answer an exception with a problem document, unless the response has started. Step 6."""
        if isinstance(error, ClientDisconnect):
            return  # There is no one to answer.
        if isinstance(error, asyncio.CancelledError):
            # The server cancels the requests that still run at the end of GRACEFUL_SECONDS, and a request that
            # only reads when its client disconnects.
            if CLIENT_DISCONNECTED in scope["state"]:
                scope["state"][STREAM_CUT] = response_recorder.CLIENT_DISCONNECTED
            elif not response.has_started:
                refusal = ShuttingDownError(write_in_doubt=scope["method"] in _WRITES)
                await problems.respond(scope, refusal, response.receive, response.send)
            raise error
        if response.has_started or not isinstance(error, Exception):  # The server closes the connection.
            raise error
        await problems.respond(scope, error, response.receive, response.send)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer a request that is within its quota and passes the checks. Steps 3 to 5."""
        if scope["type"] == "http":
            if self._rate_limit is not None and (counting := self._rate_limit.count(scope)) is not None:
                await counting
            fields = scope["state"][HEADER_FIELDS]
            for check in self._checks:
                check(scope, fields)
            if scope["method"] == "HEAD":
                await answer_head(self._app, scope, receive, send)
                return
        await self._app(scope, receive, send)
