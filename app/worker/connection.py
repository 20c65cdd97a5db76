"""One client's connection: Uvicorn's HTTP/1.1 protocol, with a limit on everything a client may send."""

import asyncio
import math
from http import HTTPStatus
from typing import Any

import httptools

from app.worker.head import RequestRefusedError, check_head, check_transfer_encoding, split_target, without_upgrade
from app.worker.limits import MAX_DISCARDED_BYTES, MAX_HEAD_BYTES, MAX_PIPELINED, MAX_TARGET_BYTES
from app.worker.response import RequestCycle, ResponseTransport, plain_text_response
from app.worker.timeouts import ClientTimeouts

_CHECKED_HEADERS = frozenset({b"expect", b"transfer-encoding"})

_UNIX_PEER = ("127.0.0.1", 0)
"""The client address of a peer on a Unix socket, which has none: a process on this machine, as on the loopback
interface. FORWARDED_ALLOW_IPS trusts it by this address. Gunicorn accepts no name such as `unix` there."""


class Connection(ClientTimeouts):
    """Uvicorn's protocol with limits. Gunicorn's `limit_request_*` settings do not apply to Uvicorn workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_complete = False
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._discarded_bytes = 0
        self._upgrade_requested = False
        self._input_refused = False
        """Input is discarded: a request was refused, and the connection closes after its answer."""
        self._refusal_status: HTTPStatus | None = None
        """The status of a refusal that waits for the responses to earlier requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        if self.server is not None and self.server[1] is None:
            self.client = _UNIX_PEER
        self._response_transport = ResponseTransport(transport, self.close)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and refuse what is malformed or too large."""
        if self._input_refused or self._closing:
            self._discard(len(data))
            return
        self._chunk_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(reason.status if isinstance(reason, RequestRefusedError) else HTTPStatus.BAD_REQUEST)
        else:
            if self._receiving:
                self._check_unfinished(len(data))

    def on_message_begin(self) -> None:
        """Start the timeout for the whole request."""
        super().on_message_begin()
        self._receiving = True
        self._head_complete = False
        self._head_bytes = 0
        self._discarded_bytes = 0
        if not self.flow.write_paused:
            self._set_deadline(self.limits.receive_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field. A trailer is dropped: a proxy in front does not check it as it checks a header."""
        if self._head_complete:
            return
        name = name.lower()
        if name in _CHECKED_HEADERS:
            value = value.strip()
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            else:
                check_transfer_encoding(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the application with the request, unless its head is refused."""
        parser, scope = self.parser, self.scope
        version, method, target = parser.get_http_version(), parser.get_method(), self.url
        received = self._head_bytes + self._chunk_bytes
        check_head(method=method, target=target, version=version, headers=self.headers, received_bytes=received)
        if parser.should_upgrade():
            self._upgrade_requested = True
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RequestRefusedError(HTTPStatus.TOO_MANY_REQUESTS)
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = split_target(target)
        self._head_complete = True
        previous, self.cycle = self.cycle, self._new_cycle(keep_alive=version == "1.1" and parser.should_keep_alive())
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _new_cycle(self, *, keep_alive: bool) -> RequestCycle:
        return RequestCycle(
            scope=self.scope,
            transport=self._response_transport,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive and not self.server_state.draining,
            on_response=self.on_response_complete,
        )

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, unless the response is already complete."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._discarded_bytes -= len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the timeout: from now on the connection waits for the application."""
        if self._upgrade_requested:
            return
        self._receiving = False
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._wait_for_next_request()
            return
        cycle.more_body = False
        cycle.message_event.set()
        if not self.flow.write_paused:
            self.deadline = math.inf

    def on_response_complete(self) -> None:
        """Start the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self._closing or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refusal_status is not None:
            self._close_with(self._refusal_status)
        else:
            self._wait_for_next_request()

    def _check_unfinished(self, received_bytes: int) -> None:
        if self._head_complete:
            self._discarded_bytes += received_bytes
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self._head_bytes += received_bytes
        if len(self.url) > MAX_TARGET_BYTES:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _discard(self, received_bytes: int) -> None:
        self._discarded_bytes += received_bytes
        if self._closing and self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.abort()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request with an `Upgrade` header as if it had none.

        The parser assumes that such a request has no body, and would read the
        body as the next request. So its head is parsed again without the header.
        """
        self._upgrade_requested = False
        old = self.parser
        head = without_upgrade(
            method=old.get_method(), target=self.url, version=old.get_http_version(), headers=self.headers
        )
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(head + rest)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer the request without the application, after the responses to earlier requests, and close."""
        self._input_refused = True
        self.deadline = math.inf
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if not (self._receiving and self._head_complete):
            # The application has not received this request.
            if busy:
                self._refusal_status = status
            else:
                self._close_with(status)
        elif self.pipeline:
            self.pipeline.popleft()
            self._refusal_status = status
        elif cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            self._close_with(None if cycle.response_started else status)
        else:
            self._close_with(None)

    def _close_with(self, status: HTTPStatus | None) -> None:
        """Write a refusal, unless a response has started, and close."""
        if status is not None:
            self.transport.write(plain_text_response(status, self.server_state.default_headers))
        # The client may still be sending, so the close has to linger.
        self._receiving = True
        self.close()
