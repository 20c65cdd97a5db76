"""Records the status and the size of the response to one request, and completes its headers."""

from typing import Final

from starlette.types import Message, Receive, Scope, Send

from app.middleware.response_headers import ResponseHeaders

CLIENT_DISCONNECTED: Final = 499
"""The status of a request whose client disconnected before it had the whole response. It is logged and counted, and
never sent."""


class ResponseRecorder:
    """Wraps the `receive` and `send` of one request."""

    __slots__ = (
        "_headers", "_is_complete", "_path", "_receive", "_send", "_state", "_status", "has_started", "sent_bytes",
    )  # fmt: skip

    def __init__(self, receive: Receive, send: Send, scope: Scope, headers: ResponseHeaders) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self._path: str = scope["path"]  # the one that was received: `RootPath` changes it while the route responds
        self._state = scope["state"]
        self._status = 0
        self._is_complete = False
        self.has_started = False
        """Whether a part of the response was sent."""
        self.sent_bytes = 0
        """The bytes of the response body sent so far."""

    @property
    def can_respond(self) -> bool:
        """Whether no response has started and the client is still connected, as far as is known."""
        return not self._status

    @property
    def status(self) -> int:
        """The status of the response, or CLIENT_DISCONNECTED without a response."""
        return self._status or CLIENT_DISCONNECTED

    async def receive(self) -> Message:
        """Receive a message, and record a disconnect."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_complete:
            self._status = CLIENT_DISCONNECTED
        return message

    async def send(self, message: Message) -> None:
        """Complete the headers, record the status and the bytes sent, and send a message."""
        self.has_started = True
        if message["type"] == "http.response.start":
            self._status = self._status or message["status"]
            message["headers"] = self._headers.complete(self._path, message.get("headers", ()), self._state)
            self._is_complete = "body" in message
        elif not message.get("more_body", False):
            self._is_complete = True
        self.sent_bytes += len(message.get("body", b""))
        await self._send(message)
