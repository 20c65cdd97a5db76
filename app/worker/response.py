"""How one request is answered: by the application, or by the server when the application cannot see the request."""

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class ResponseTransport:
    """The transport that a response is written to. Closing it closes the connection gracefully."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class RequestCycle(RequestResponseCycle):
    """One request and its response."""

    async def send_500_response(self) -> None:
        """Answer a request whose application has failed: 503 when draining has cancelled it, else 500."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            await super().send_500_response()
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close"), (b"retry-after", b"1")]
        await self.send({"type": "http.response.start", "status": 503, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def plain_text_response(status: HTTPStatus, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A complete response of the server itself. It says `Connection: close`."""
    text = f"{status.phrase}\n".encode()
    lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in default_headers)]
    lines.append(b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(text))
    return b"".join([*lines, text])
