"""One client's connection: HTTP/1.1 as uvicorn speaks it, with a bound on everything a client may send."""

import asyncio
import math
from http import HTTPStatus
from typing import Any

import httptools

from app.worker.answer import Cycle, Output, refusal
from app.worker.head import RefusalError, check_coding, check_head, decode_path, without_upgrade
from app.worker.limits import MAX_HEAD_BYTES, MAX_PIPELINED, MAX_TARGET_BYTES, MAX_UNWANTED_BYTES
from app.worker.patience import PatientProtocol

_WATCHED_HEADERS = frozenset({b"expect", b"transfer-encoding"})


class Connection(PatientProtocol):
    """What Gunicorn's `limit_request_*` settings would do, which do not reach uvicorn, and more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_complete = False
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._unwanted_bytes = 0
        self._offers_upgrade = False
        self._deaf = False
        self._refusal: HTTPStatus | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._output = Output(transport, self.finish)

    def data_received(self, data: bytes) -> None:
        """Read on, and refuse what is malformed or too much."""
        if self._deaf or self._over:
            self._discard(len(data))
            return
        self._chunk_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(reason.status if isinstance(reason, RefusalError) else HTTPStatus.BAD_REQUEST)
        else:
            if self._receiving:
                self._check_unfinished(len(data))

    def on_message_begin(self) -> None:
        """Start the clock: the whole request must arrive in time."""
        super().on_message_begin()
        self._receiving = True
        self._head_complete = False
        self._head_bytes = 0
        self._unwanted_bytes = 0
        if not self.flow.write_paused:
            self._wait(self.limits.receive_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field. A trailer is dropped: it must not pass for a header that a proxy would have checked."""
        if self._head_complete:
            return
        name = name.lower()
        if name in _WATCHED_HEADERS:
            value = value.strip()
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            else:
                check_coding(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its head is refused."""
        parser, scope = self.parser, self.scope
        version, method, target = parser.get_http_version(), parser.get_method(), self.url
        received = self._head_bytes + self._chunk_bytes
        check_head(method=method, target=target, version=version, headers=self.headers, received_bytes=received)
        if parser.should_upgrade():
            self._offers_upgrade = True
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RefusalError(HTTPStatus.TOO_MANY_REQUESTS)
        url = httptools.parse_url(target)
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        scope["path"] = decode_path(url.path)
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        self._head_complete = True
        previous, self.cycle = self.cycle, self._new_cycle(keep_alive=version == "1.1" and parser.should_keep_alive())
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _new_cycle(self, *, keep_alive: bool) -> Cycle:
        return Cycle(
            scope=self.scope,
            transport=self._output,  # type: ignore[arg-type]
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
        """Keep a piece of the body, unless it has been answered without it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwanted_bytes -= len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the application now, not for the client."""
        if self._offers_upgrade:
            return
        self._receiving = False
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._rest()
            return
        cycle.more_body = False
        cycle.message_event.set()
        if not self.flow.write_paused:
            self.deadline = math.inf

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self._over or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refusal is not None:
            self._end(self._refusal)
        else:
            self._rest()

    def _check_unfinished(self, received_bytes: int) -> None:
        if self._head_complete:
            self._unwanted_bytes += received_bytes
            if self._unwanted_bytes > MAX_UNWANTED_BYTES:
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self._head_bytes += received_bytes
        if len(self.url) > MAX_TARGET_BYTES:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _discard(self, received_bytes: int) -> None:
        self._unwanted_bytes += received_bytes
        if self._over and self._unwanted_bytes > MAX_UNWANTED_BYTES:
            self.transport.abort()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol as if it did not.

        The parser takes such a request to have no body, and would read the body
        as the next request. So its head is read once more without the offer.
        """
        self._offers_upgrade = False
        old = self.parser
        head = without_upgrade(
            method=old.get_method(), target=self.url, version=old.get_http_version(), headers=self.headers
        )
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(head + rest)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer in the application's place, after the requests that came before, and close."""
        self._deaf = True
        self.deadline = math.inf
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if not (self._receiving and self._head_complete):
            # The application has not seen this request.
            if busy:
                self._refusal = status
            else:
                self._end(status)
        elif self.pipeline:
            self.pipeline.popleft()
            self._refusal = status
        elif cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            self._end(None if cycle.response_started else status)
        else:
            self._end(None)

    def _end(self, status: HTTPStatus | None) -> None:
        """Write the refusal unless an answer has begun, and hear the client out."""
        if status is not None:
            self.transport.write(refusal(status, self.server_state.default_headers))
        self._receiving = True
        self.finish()
