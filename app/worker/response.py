"""How one request is answered: by the application, or by the server when the application cannot see the request."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from app.errors import RequestRefusedError
from app.state_keys import STREAM_CUT, WHOLE_RESPONSE
from app.worker.response_writer import ResponseWriter

_PLAIN_TEXT = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SAFE_METHODS = frozenset({"GET", "HEAD"})


class ResponseTransport:
    """What a response may do with its connection. Closing it closes the connection gracefully."""

    __slots__ = ("close", "is_closing", "resume_reading", "write")

    def __init__(
        self, transport: asyncio.Transport, *, close: Callable[[], None], resume_reading: Callable[[], None]
    ) -> None:
        self.write: Callable[[bytes], None] = transport.write
        self.is_closing = transport.is_closing
        self.close = close
        self.resume_reading = resume_reading

    def drop_writes(self) -> None:
        """Drop what is written from now on. The transport of a closed connection raises an error instead."""
        self.write = _drop

    def release(self) -> None:
        """Refer to the connection no more."""
        self.close = self.resume_reading = _ignore


def _drop(_: bytes) -> None:
    pass


class RequestCycle(ResponseWriter):
    """One request and its response."""

    is_long = False
    """The application may begin before the body has arrived completely."""

    head_bytes = 0
    handed_on_bytes = 0
    """How much of the body the application has got."""

    refusal: RequestRefusedError | None = None
    """Why the rest of the request was refused."""

    has_news = False
    """Whether something has arrived that `receive` has not returned yet."""

    @property
    def is_safe(self) -> bool:
        """Whether the request only reads."""
        return self.scope["method"] in _SAFE_METHODS

    @property
    def is_cancelled_on_disconnect(self) -> bool:
        """Whether the request is cancelled when its client disconnects: if it only reads, and runs in no thread.

        A thread goes on after that, and another one would get its place among the threads.
        """
        route = self.scope.get("route")
        return self.is_safe and (route is None or getattr(route, "is_asynchronous", False))

    async def run_asgi(self, app: Any) -> None:
        """Have the application answer the request, and answer for it if it fails."""
        send = self.send
        state = self.scope["state"]
        state[WHOLE_RESPONSE] = send
        try:
            await app(self.scope, self.receive, send)
        except BaseException as error:  # noqa: BLE001  # there is no one else to handle it
            await self._answer_failure(error)
        else:
            if not self.response_complete and not self.disconnected:
                if STREAM_CUT not in state:
                    self.logger.error("The application has returned without a complete response.")
                await self._answer_internal_error()
        finally:
            state.pop(WHOLE_RESPONSE, None)  # it refers to this object
            self.on_response = _ignore

    async def receive(self) -> Any:
        """Wait for the next part of the body, or for the end of the request.

        Raises:
            RequestRefusedError: The rest of the request was refused. The application must not act on what it has got.
        """
        if self.refusal is None and not self.disconnected and not self.response_complete:
            self.continue_request()
            self.transport.resume_reading()
            if not self.has_news:
                self.message_event = self.message_event or asyncio.Event()
                await self.message_event.wait()
                self.message_event.clear()
            self.has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self.refusal is not None:
            raise self.refusal
        message = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self.handed_on_bytes += len(self.body)
        self.body = bytearray()
        return message

    def notify(self) -> None:
        """Have `receive` look again at what has arrived."""
        self.has_news = True
        if self.message_event is not None:
            self.message_event.set()

    def continue_request(self) -> None:
        """Send `100 Continue` if the client waits for it."""
        if self.waiting_for_100_continue:
            self.waiting_for_100_continue = False
            if self.more_body and not self.body:
                self.transport.write(_CONTINUE)

    def refuse(self, refusal: RequestRefusedError) -> None:
        """Have the application answer this refusal, as soon as it asks for the rest of the request."""
        self.refusal = refusal
        self.keep_alive = False
        self.notify()

    def disconnect(self) -> None:
        """The client is gone. What the application sends is dropped."""
        self.disconnected = True
        self.notify()

    async def _answer_failure(self, error: BaseException) -> None:
        if self.disconnected and isinstance(error, asyncio.CancelledError):
            return  # cancelled because the client is gone
        if error is self.refusal and not self.response_started:
            headers = [(name.lower().encode(), value.encode()) for name, value in self.refusal.headers.items()]
            await self._answer(self.refusal.status, str(self.refusal).encode(), headers)
            return
        if error is not self.refusal:
            self.logger.error("Exception in ASGI application\n", exc_info=error)
        await self._answer_internal_error()

    async def _answer_internal_error(self) -> None:
        """Answer 503 if draining has cancelled the application, else 500. A response that has started is cut off."""
        if self.response_started:
            self.transport.close()
            return
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await self._answer(503, b"", [(b"retry-after", b"1")])
        else:
            await self._answer(500, b"Internal Server Error", [])

    async def _answer(self, status: int, text: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.keep_alive = False
        length = (b"content-length", b"%d" % len(text))
        headers = [*_PLAIN_TEXT, length, *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": text, "more_body": False})


class RequestCycle10(RequestCycle):
    """A request by HTTP/1.0, which has no chunks: a response without Content-Length ends when the connection closes."""

    _ends_with_close = False

    async def send(self, message: Any) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            if all(name.lower() != b"content-length" for name, _ in message.get("headers", ())):
                self._ends_with_close = True
                self.chunked_encoding = False
                self.expected_content_length = len(message.get("body", b""))
        elif self._ends_with_close:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


async def await_refusal(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # an ASGI application
    """Raise the error with which the server has refused this request."""
    await receive()


def _ignore() -> None:
    pass
