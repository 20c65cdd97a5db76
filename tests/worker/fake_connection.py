"""A transport, a clock and an application, by which a test controls all that happens to a connection."""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from app.worker.connection import Connection
from app.worker.limits import Limits, State

HIGH_WATER = 65_536
LOW_WATER = 16_384

LIMITS = Limits(
    receive_seconds=10,
    keep_alive_seconds=75,
    graceful_seconds=25,
    max_connections=1_000,
    max_buffered_bytes=64 * 1024 * 1024,
)


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock the test sets."""

    now = 1_000.0

    def time(self) -> float:
        """The time that the test has set."""
        return self.now

    def settle(self) -> None:
        """Run all callbacks and tasks until they wait."""
        self.run_until_complete(_pass(10))


async def _pass(rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


class FakeTransport(asyncio.Transport):
    """A transport that behaves as uvloop's does. The client reads when the test says so."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.protocol: Connection
        self.written = bytearray()
        self.unsent = 0
        self.errors: list[str] = []
        self.reading = True
        self.eof_written = self.closing = self.lost = False
        self.is_over_high_water = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The addresses of a TCP connection."""
        return {"peername": ("192.0.2.1", 5_000), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def write(self, data: Any) -> None:
        """Keep what was written, and tell the protocol when it is too much."""
        if self.eof_written or self.lost:
            self.errors.append(f"{bytes(data[:40])!r} was written after the end")
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.closing:
            self.errors.append(f"{bytes(data[:40])!r} was written to a closing transport")
        self.written += data
        self.unsent += len(data)
        if self.unsent > HIGH_WATER and not self.is_over_high_water:
            self.is_over_high_water = True
            self.protocol.pause_writing()

    def client_reads(self, count: int) -> None:
        """The client takes this many bytes."""
        self.unsent = max(0, self.unsent - count)
        if self.unsent <= LOW_WATER and self.is_over_high_water:
            self.is_over_high_water = False
            self.protocol.resume_writing()
        if self.closing and not self.unsent:
            self.lose()

    def write_eof(self) -> None:
        """Send nothing more."""
        self.eof_written = True

    def can_write_eof(self) -> bool:
        """TCP can."""
        return True

    def get_write_buffer_size(self) -> int:
        """What the client has not taken."""
        return self.unsent

    def is_closing(self) -> bool:
        """Whether it was asked to close."""
        return self.closing

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self.reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self.reading = True

    def close(self) -> None:
        """Close when the client has taken everything."""
        self.closing = True
        if not self.unsent:
            self.lose()

    def abort(self) -> None:
        """Close at once."""
        self.closing = True
        self.unsent = 0
        self.lose()

    def lose(self, error: Exception | None = None) -> None:
        """End the connection."""
        self.closing = True
        if not self.lost:
            self.lost = True
            self.loop.call_soon(self.protocol.connection_lost, error)


@dataclass(eq=False)
class Handler:
    """A request that the application has begun."""

    scope: Any
    receive: Callable[[], Any]
    send: Callable[[Any], Any]
    commands: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    received: bytes = b""
    has_whole_body: bool = False
    is_refused: bool = False
    is_disconnected: bool = False
    is_cancelled: bool = False
    answered: int | None = None
    is_done: bool = False

    @property
    def path(self) -> str:
        """The path of the request."""
        return str(self.scope["path"])

    async def run(self) -> None:
        """Do what the test asks for, one after the other."""
        try:
            while not self.is_done:
                await self._do(*await self.commands.get())
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        finally:
            self.is_done = True

    async def _do(self, command: str, argument: int = 0) -> None:
        if command == "read":
            try:
                message = await self.receive()
            except Exception:
                self.is_refused = True
                raise
            if message["type"] == "http.disconnect":
                self.is_disconnected = True
                self.is_done = True
            else:
                self.received += message["body"]
                self.has_whole_body |= not message["more_body"]
        elif command == "answer":
            self.answered = argument
            headers = [(b"x-path", self.path.encode()), (b"content-length", str(argument).encode())]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            await self.send({"type": "http.response.body", "body": b"x" * argument})
            self.is_done = True
        elif command == "stream":
            self.answered = 3 * argument
            headers = [(b"x-path", self.path.encode()), (b"content-length", str(self.answered).encode())]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            for number in range(3):
                await self.send({"type": "http.response.body", "body": b"x" * argument, "more_body": number < 2})
            self.is_done = True
        elif command == "crash":
            self.is_done = True
            raise RuntimeError("The application has a defect.")


class ErrorLog(logging.Logger):
    """Counts the failures of the application, and writes nothing."""

    count = 0

    def error(self, *_: Any, **__: Any) -> None:
        """The application has failed."""
        self.count += 1


class FakeServer:
    """One connection of a worker, between a client and an application that the test controls."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.loop = ClockLoop()
        self.handlers: list[Handler] = []
        self.state = State(limits)
        config = uvicorn.Config(
            self._application, log_config=None, lifespan="off", ws="none", interface="asgi3", proxy_headers=False
        )
        self.transport = FakeTransport(self.loop)
        self.connection = Connection(config, self.state, {}, _loop=self.loop)
        self.transport.protocol = self.connection
        self.connection.logger = ErrorLog("failures", logging.INFO)
        self.connection.connection_made(self.transport)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        assert not self.transport.is_over_high_water, "A request begins while its client does not read."
        handler = Handler(scope, receive, send)
        self.handlers.append(handler)
        await handler.run()

    @property
    def running(self) -> Handler | None:
        """The request that the application has not yet answered."""
        return next((handler for handler in self.handlers if not handler.is_done), None)

    def deliver(self, data: bytes) -> None:
        """The client sends this, and the server reads it."""
        self.connection.data_received(data)
        self.loop.settle()

    def end_input(self) -> None:
        """The client closes its sending side."""
        if not self.connection.eof_received():
            self.transport.close()
        self.loop.settle()

    def order(self, handler: Handler, command: str, argument: int = 0) -> None:
        """Have the application do this for a request."""
        handler.commands.put_nowait((command, argument))
        self.loop.settle()

    def wait(self, seconds: float) -> None:
        """Let time pass, with a heartbeat of the server at the end."""
        self.loop.now += seconds
        if self.connection in self.state.connections and self.connection.deadline < self.loop.now:
            self.connection.handle_timeout()
            if not self.transport.lost:
                assert self.connection.deadline >= self.loop.now, "A deadline was not handled."
        self.loop.settle()

    def drain(self) -> None:
        """Begin to drain, as the server does."""
        self.state.draining = True
        self.connection.shutdown()
        self.loop.settle()

    def cancel_handlers(self) -> None:
        """Cancel what runs, as the server does at the end of GRACEFUL_SECONDS."""
        for task in self.state.tasks:
            task.cancel()
        self.loop.settle()

    def client_reads(self, count: int) -> None:
        """The client takes this many bytes."""
        self.transport.client_reads(count)
        self.loop.settle()

    def reset(self) -> None:
        """The client resets the connection."""
        self.transport.unsent = 0
        self.transport.lose(ConnectionResetError())
        self.loop.settle()

    def responses(self) -> list[tuple[int, str]]:
        """The status of each response and its `X-Path`. Interim responses are left out."""
        found, rest = [], bytes(self.transport.written)
        while rest and not b"HTTP/1.1 ".startswith(rest):  # the first bytes of a response are written as a probe
            head, separator, rest = rest.partition(b"\r\n\r\n")
            assert separator, head
            match = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
            assert match, head
            if match[1] == b"100":
                continue
            length = re.search(rb"content-length: (\d+)", head)
            path = re.search(rb"x-path: (\S+)", head)
            assert length, head
            found.append((int(match[1]), path[1].decode() if path else ""))
            rest = rest[int(length[1]) :]
        return found

    def close(self) -> None:
        """End what still runs."""
        if not self.transport.lost:
            self.reset()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.close()
