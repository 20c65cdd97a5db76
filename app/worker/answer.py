"""How one request is answered: by the application, or in its place."""

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class Output:
    """What an answer is written to: the transport, but its end goes through the connection."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, finish: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = finish


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    async def send_500_response(self) -> None:
        """Answer a defect; a request that draining has cut short was none."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            await super().send_500_response()
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close"), (b"retry-after", b"1")]
        await self.send({"type": "http.response.start", "status": 503, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def refusal(status: HTTPStatus, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A whole answer in plain text, after which the connection ends."""
    text = f"{status.phrase}\n".encode()
    lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in default_headers)]
    lines.append(b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(text))
    return b"".join([*lines, text])
