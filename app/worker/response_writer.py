"""Writes a response to its connection: the head of a short one together with its body."""

import asyncio
from functools import lru_cache
from typing import Any, Final, NoReturn

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_JOINED_BYTES: Final = 64 * 1024
"""A longer part of a body is written by itself: copying it would cost more than a second write."""

_CONTENT_LENGTH: Final = b"content-length: "
_TRANSFER_ENCODING: Final = b"transfer-encoding: "
_CONNECTION: Final = b"connection: "
_FRAMING: Final = frozenset({_CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION})

_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


class ResponseWriter(RequestResponseCycle):
    """Uvicorn's cycle, which writes the head and the body of a response by one system call where it can.

    A head with a Content-Length waits for the first part of the body, which an application sends at once. The head of
    a stream is written immediately, because its first part may take long. With WHOLE_RESPONSE head and body are one
    message.
    """

    message_event: asyncio.Event | None  # type: ignore[assignment]
    """Set when `receive` must look again. None until it waits for the first time."""

    _head: bytes | None = None
    """The head, while it waits for the body."""

    _has_body = True
    """Whether what the application sends as the body is sent."""

    async def send(self, message: Any) -> None:
        """Send a part of the response.

        Raises:
            RuntimeError: The application has sent an invalid header, another length than it declared, or a part that
                is out of order.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if self.response_complete or message["type"] != expected:
            raise RuntimeError(f"The application has sent {message['type']} where {expected} is expected.")
        if self.response_started:
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            self._begin(message)

    def _begin(self, message: Any) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        self._has_body = self.scope["method"] != "HEAD" and status not in _BODILESS
        head = self._render_head(status, [*self.default_headers, *message.get("headers", ())])
        body = message.get("body")
        if body is not None:
            self._head = head
            self._write_body(body, is_last=True)
        elif self.chunked_encoding is False and self.expected_content_length:
            self._head = head
        else:
            self.transport.write(head)

    def _render_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("Invalid HTTP header value.")
        lines = [STATUS_LINE[status]]
        says_close = False
        for name, value in headers:
            beginning = _beginning(name)
            if beginning in _FRAMING:
                says_close |= self._frame(beginning, value)
                if status == _NO_CONTENT and beginning == _CONTENT_LENGTH:  # RFC 9110 forbids it
                    continue
            lines += (beginning, value, b"\r\n")
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self._has_body:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _frame(self, beginning: bytes, value: bytes) -> bool:
        """Note how the response is framed. Return whether the header says that the connection closes."""
        if beginning == _CONNECTION:
            if b"close" not in [token.lower().strip() for token in value.split(b",")]:
                return False
            self.keep_alive = False
            return True
        if beginning == _CONTENT_LENGTH:
            if self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
        elif value.lower() == b"chunked":
            self.expected_content_length = 0
            self.chunked_encoding = True
        return False

    def _write_body(self, body: bytes, *, is_last: bool) -> None:
        if not self._has_body:
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (is_last and self.expected_content_length):
                self._refuse_length()
        self._write(body)
        if is_last:
            self.response_complete = True
            if self.message_event is not None:
                self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _refuse_length(self) -> NoReturn:
        """Raise an error. If nothing is written yet, another response can be sent."""
        problem = "longer" if self.expected_content_length < 0 else "shorter"
        if self._head is not None:
            self._head, self.response_started = None, False
            self.expected_content_length, self.chunked_encoding = 0, None
        raise RuntimeError(f"Response content {problem} than Content-Length")

    def _write(self, body: bytes) -> None:
        head, self._head = self._head, None
        if head is not None and len(body) <= _JOINED_BYTES:
            body, head = head + body, None
        for data in (head, body):
            if data:
                self.transport.write(data)


@lru_cache(maxsize=256)
def _beginning(name: bytes) -> bytes:
    """The beginning of the line of a header with this name. Applications use few names."""
    if HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    return name.lower() + b": "
