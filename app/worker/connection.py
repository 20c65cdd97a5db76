"""One client's connection: Uvicorn's HTTP/1.1 protocol, with a limit on everything a client may send."""

import asyncio
import contextvars
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from app.errors import RequestRefusedError
from app.state_keys import ANSWER_REFUSED, BODY_LONG, CLIENT_DISCONNECTED, REFUSAL
from app.worker.client import LimitedClient
from app.worker.head import (
    MAX_LINE_BYTES,
    HeadRefusedError,
    check_blank_lines,
    check_head,
    check_host,
    check_transfer_encoding,
    origin_form,
    request_line,
    split_target,
    without_upgrade,
)
from app.worker.limits import MAX_DISCARDED_BYTES, MAX_HEAD_BYTES, MAX_PIPELINED, MAX_TARGET_BYTES
from app.worker.parts import RequestParts
from app.worker.response import RequestCycle, RequestCycle10, await_refusal

_CHECKED_HEADERS = frozenset({b"content-length", b"expect", b"host", b"transfer-encoding"})

_WHITE_SPACE = b" \t"

_UNIX_PEER = ("127.0.0.1", 0)
"""The client address of a peer on a Unix socket, which has none: a process on this machine, as on the loopback
interface. FORWARDED_ALLOW_IPS trusts it by this address. Gunicorn accepts no name such as `unix` there."""


class Connection(LimitedClient):
    """Uvicorn's protocol with limits. Gunicorn's `limit_request_*` settings do not apply to Uvicorn workers.

    The parser's callbacks put each request whose head has arrived into `pipeline`. After each event `_after_event`
    starts the oldest of them, once it is complete or too long to be kept and the response before it has been taken.
    So a request that is refused has not begun, unless its body is long; then the application's `receive` raises.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser.set_dangerous_leniencies(lenient_version=True)  # `check_head` refuses other versions
        self._head_complete = False
        self._parts = RequestParts()
        self._part_bytes = 0
        self._discarded_bytes = 0
        self._declared_bytes = 0
        self._host = b""
        """The last valid Host: most clients send the same with each request."""
        self._raw = b""
        """What has arrived of a request, until its line is checked. Empty lines may precede it."""
        self._line_checked = False
        self._upgrade_requested = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        if self.server is not None and self.server[1] is None:
            self.client = _UNIX_PEER
        self._enter()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all requests that their client is gone. One that only reads is cancelled, with its SQL statement."""
        self._closing = True
        self._response_transport.drop_writes()
        for cycle, _ in self.pipeline:
            cycle.disconnect()
        if self._running is not None and self._task is not None:
            self._running.disconnect()
            if self._running.is_cancelled_on_disconnect:
                self._running.scope["state"][CLIENT_DISCONNECTED] = True
                self._task.cancel("The client has disconnected.")
        if self.pipeline and self.pipeline[0][0].more_body:
            # It is not executed, but logged and counted as one whose client has disconnected.
            self._start_asgi_task(self.pipeline[0][0], self._refused_app())
        self.pipeline.clear()
        self._running = self._task = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and refuse what is malformed or too large."""
        if self._input_refused or self._closing:
            self._discard(len(data))
        else:
            self._parse(data)
        self._after_event()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the requests that are complete: the client may still read. Refuse an incomplete one."""
        self._half_closed = True
        if self._receiving:
            self._refuse(HTTPStatus.BAD_REQUEST)
        self._end_with_last_response()
        self._probe()
        self._after_event()
        return not self._closing

    def shutdown(self) -> None:
        """Begin to drain: the next response says `Connection: close`.

        An idle connection stays open for LINGER_SECONDS. If it were closed at
        once, a request that its client is just sending would be lost.
        """
        self._end_with_last_response()
        self._after_event()

    def on_message_begin(self) -> None:
        """Start the timeout for the whole request."""
        super().on_message_begin()
        self._receiving = True
        self._head_complete = False
        self._head_bytes = 0
        self._discarded_bytes = 0
        self._declared_bytes = 0
        self._start_request_time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field. A trailer is dropped: a proxy in front does not check it as it checks a header."""
        if self._head_complete:
            return
        name = name.lower()
        if value[-1:] in _WHITE_SPACE:  # also if it is empty; the parser drops the white space before a value
            value = value.strip(_WHITE_SPACE)
        if name in _CHECKED_HEADERS:
            self._check_header(name, value)
        self.headers.append((name, value))

    def _check_header(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            if value != self._host:
                check_host(value)
                self._host = value
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"content-length":
            self._declared_bytes = int(value)  # the parser accepts nothing but digits
        else:
            check_transfer_encoding(value)

    def on_headers_complete(self) -> None:
        """Put the request into the pipeline, unless its head is refused."""
        parser, scope = self.parser, self.scope
        version, method, target = parser.get_http_version(), parser.get_method(), self.url
        received = self._head_bytes + self._part_bytes
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        if not self._line_checked:
            self._check_line()
        check_head(method=method, target=target, version=version, headers=self.headers, received_bytes=received)
        if parser.should_upgrade():
            self._upgrade_requested = True
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise HeadRefusedError(HTTPStatus.TOO_MANY_REQUESTS)
        if not target.startswith(b"/"):
            target = origin_form(target, self.headers, version=version)
        scope["path"], scope["raw_path"], scope["query_string"] = split_target(target)
        self._head_complete = True
        self._parts.expect_body(self._declared_bytes)
        cycle = self.cycle = self._new_cycle(keep_alive=version == "1.1" and parser.should_keep_alive())
        cycle.head_bytes, self._head_bytes = received, 0
        cycle.is_long = self._declared_bytes > self.limits.whole_body_bytes
        if self._running is not None:
            self.flow.pause_reading()
        self.pipeline.appendleft((cycle, self.app))

    def _new_cycle(self, *, keep_alive: bool) -> RequestCycle:
        version = self.scope["http_version"]
        cycle_class = RequestCycle10 if version == "1.0" else RequestCycle
        return cycle_class(
            scope=self.scope,
            transport=self._response_transport,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=None,  # type: ignore[arg-type]  # made when it is needed
            expect_100_continue=self.expect_100_continue and version != "1.0",
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, unless the response is already complete."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return
        self._discarded_bytes -= len(body)
        cycle.body += body
        kept = len(cycle.body)
        if kept > self.limits.whole_body_bytes:
            cycle.is_long = True
        if kept > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.notify()

    def on_message_complete(self) -> None:
        """Note that the request has arrived completely."""
        if self._upgrade_requested:
            return
        self._receiving = self._line_checked = False
        if self.cycle is not None:
            self.cycle.more_body = False
            self.cycle.notify()

    def on_response_complete(self) -> None:
        """Start the next request, or wait for it."""
        self.server_state.total_requests += 1
        self._running = self._task = None
        self._has_answered = True
        self._after_event()

    def _after_event(self) -> None:
        """Start what can start, close what has ended, and update the deadline."""
        if self._running is None and not self._closing:
            self._advance()
        self._update_deadline()

    def _advance(self) -> None:
        if self.flow.write_paused:
            # The client must first take the response before. Until then it gets no other one.
            if self.pipeline:
                self.flow.pause_reading()
        elif not self.pipeline:
            if not self._receiving:
                self._forget_request()
            if self._half_closed:
                self.close()
            elif self.flow.read_paused:
                self.flow.resume_reading()
        else:
            cycle, app = self.pipeline[-1]
            if cycle.more_body and not cycle.is_long:
                cycle.continue_request()
                self.flow.resume_reading()
            else:
                self.pipeline.pop()
                if cycle.is_long:
                    cycle.scope["state"][BODY_LONG] = True
                self._start_asgi_task(cycle, app)

    def _forget_request(self) -> None:
        """Keep nothing of a request that was answered: the connection may be idle for long."""
        self.cycle = None
        nothing: Any = {}
        self.scope, self.headers, self.url = nothing, [], b""

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        if self._half_closed or self.server_state.draining:
            self._end_with_last_response()
        # Not a copy of this context: asyncio could leak variables from one request to the next
        # (python/cpython#140947).
        self._task = self.loop.create_task(cycle.run_asgi(app), context=contextvars.Context())
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def _end_with_last_response(self) -> None:
        """Let the last response say `Connection: close`: while draining, and for a client that sends nothing more.

        A response that has started has already said that the connection is kept.
        """
        cycle = self._running
        if cycle is not None and not self.pipeline and not cycle.response_started:
            cycle.keep_alive = False

    def _parse(self, data: bytes) -> None:
        for part in self._parts.split(data):
            self._parse_part(part)
            if self._input_refused:
                return
        queued = len(self.pipeline)
        if self._receiving or queued > 1 or (queued and self._running is not None):
            self._count_received(len(data))

    def _parse_part(self, part: bytes) -> None:
        self._part_bytes = len(part)
        try:
            if not self._line_checked:
                self._raw += part
                if not self._receiving and self._raw[0] in b"\r\n":
                    check_blank_lines(self._raw)
            self.parser.feed_data(part)
            if self._receiving:
                self._check_unfinished()
            else:
                self._raw = b"\r" if self._raw.endswith(b"\r") else b""  # one half of an empty line
        except HeadRefusedError as refusal:
            self._refuse(refusal.status)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(reason.status if isinstance(reason, HeadRefusedError) else HTTPStatus.BAD_REQUEST)

    def _check_line(self) -> None:
        """Refuse the request unless its line was sent as it must be, directly after the request before."""
        parser = self.parser
        line = request_line(method=parser.get_method(), target=self.url, version=parser.get_http_version())
        if not self._raw.lstrip(b"\r\n").startswith(line):
            raise HeadRefusedError(HTTPStatus.BAD_REQUEST)
        self._line_checked = True
        self._raw = b""

    def _check_unfinished(self) -> None:
        if self._head_complete:
            self._discarded_bytes += self._part_bytes
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                raise HeadRefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self._head_bytes += self._part_bytes
        if len(self.url) > MAX_TARGET_BYTES:
            raise HeadRefusedError(HTTPStatus.REQUEST_URI_TOO_LONG)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadRefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if b"\r\n" in self._raw.lstrip(b"\r\n") or len(self._raw) > MAX_LINE_BYTES:
            self._check_line()

    def _discard(self, received_bytes: int) -> None:
        self._discarded_bytes += received_bytes
        if self._closing and self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.abort()

    def _ignore_upgrade(self) -> None:
        """Serve a request with an `Upgrade` header as if it had none.

        The parser assumes that such a request has no body, and would read the
        body as the next request. So its head, with which the part ends, is parsed again without the header.
        """
        self._upgrade_requested = False
        old = self.parser
        head = without_upgrade(
            method=old.get_method(), target=self.url, version=old.get_http_version(), headers=self.headers
        )
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_version=True)
        self._parse_part(head)

    def _refuse(self, status: HTTPStatus) -> None:
        """Refuse the request that is arriving, and close after its answer.

        The answer comes after the responses to the requests before. The application gives it: a request that has
        begun finds the refusal when it asks for more of the body, any other one is not executed.
        """
        cycle = self.cycle if self._receiving and self._head_complete else None
        self._input_refused = True
        if cycle is None:
            self._answer_refused(status)
        elif cycle.response_complete:
            self.close()
        elif cycle is self._running:
            cycle.refuse(self._refusal(status))
        else:
            self.pipeline.popleft()
            self._answer_refused(status)
        self._receiving = False

    def _answer_refused(self, status: HTTPStatus) -> None:
        if not self._receiving:
            self.on_message_begin()  # What has arrived is not the beginning of a request.
        scope: Any = self.scope
        for name, unknown in (("method", "none"), ("path", "none"), ("raw_path", b""), ("query_string", b"")):
            scope.setdefault(name, unknown)
        refused = self._new_cycle(keep_alive=False)
        refused.more_body = False
        refused.refuse(self._refusal(status))
        self.cycle = refused
        self.pipeline.appendleft((refused, self._refused_app()))

    def _refusal(self, status: HTTPStatus) -> RequestRefusedError:
        refusal: RequestRefusedError = self.app_state.get(REFUSAL, RequestRefusedError)(status)
        return refusal

    def _refused_app(self) -> Any:
        return self.app_state.get(ANSWER_REFUSED, await_refusal)
