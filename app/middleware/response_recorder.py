"""Records the status and the size of the response to one request."""

from typing import Final

from starlette.types import Message, Receive, Send

CLIENT_GONE: Final = 499
"""The status of a request whose client had gone before its answer began. It is logged and counted, as nginx does, and
never sent."""


class ResponseRecorder:
    """Wraps the `receive` and `send` of one request and records what passes through them."""

    __slots__ = ("_receive", "_send", "_status", "sent_bytes")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._status = 0
        self.sent_bytes = 0
        """Of the body."""

    @property
    def is_open(self) -> bool:
        """Whether no answer has begun, and somebody may still wait for one."""
        return not self._status

    @property
    def status(self) -> int:
        """The answer's status, CLIENT_GONE without one."""
        return self._status or CLIENT_GONE

    async def receive(self) -> Message:
        """Receive, and notice that the client has gone."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._status:
            self._status = CLIENT_GONE
        return message

    async def send(self, message: Message) -> None:
        """Send, and note the status and how much was sent."""
        if message["type"] == "http.response.start":
            self._status = self._status or message["status"]
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)
