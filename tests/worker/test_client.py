"""Real connections to a small application, in this process."""

import asyncio
import gc
import math
import socket
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.config import Config

from app.worker.connection import Connection
from app.worker.limits import Limits, State
from app.worker.totals import Phase

pytestmark = pytest.mark.anyio

LARGE = 8_000_000
"""More than the buffers of the kernel take."""

KEPT_BYTES = 65_536
"""What the application may keep of a body."""


class Worker:
    """Connections that share their totals."""

    def __init__(self, **limits: int) -> None:
        self.state = State(
            Limits(
                receive_seconds=60, keep_alive_seconds=60, graceful_seconds=60,
                **{"max_connections": 10, "max_buffered_bytes": 100_000_000} | limits,
            )
        )  # fmt: skip
        self.finish = asyncio.Event()
        self.config = Config(self._application, log_config=None, loop="none", interface="asgi3")
        self.config.load()
        self.clients: list[socket.socket] = []

    async def _application(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        while scope["path"] != "/unread" and (await receive()).get("more_body"):
            pass
        if scope["path"] == "/wait":
            await self.finish.wait()
        body = b"x" * (LARGE if scope["path"] == "/large" else 2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    @property
    def open(self) -> list[Connection]:
        """The connections that are open."""
        return list(self.state.connections)  # type: ignore[arg-type]

    async def connect(self, sent: bytes = b"") -> tuple[socket.socket, Connection]:
        """A client, and its connection once what it sent was read."""
        loop = asyncio.get_running_loop()
        client, accepted = socket.socketpair()
        for end in (client, accepted):
            end.setblocking(False)
        self.clients.append(client)
        _, connection = await loop.connect_accepted_socket(lambda: Connection(self.config, self.state, {}), accepted)
        if sent:
            await loop.sock_sendall(client, sent)
        for _ in range(20):
            await asyncio.sleep(0.001)
        return client, connection


@asynccontextmanager
async def worker(**limits: int) -> AsyncIterator[Worker]:
    """A worker, whose clients are closed at the end."""
    opened = Worker(**limits)
    try:
        yield opened
    finally:
        opened.finish.set()
        for client in opened.clients:
            client.close()
        await asyncio.sleep(0.05)


async def received(client: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    pieces = b""
    while piece := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65_536), 10):
        pieces += piece
    return pieces


def request(path: str = "/", headers: str = "") -> bytes:
    """A request."""
    return f"POST {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "phase"),
    [
        (b"", Phase.IDLE),
        (request(), Phase.IDLE),
        (request()[:9], Phase.RECEIVING),
        (request(headers="Content-Length: 9\r\n") + b"x", Phase.RECEIVING),
        (request(headers="Content-Length: 300000\r\n") + b"x" * 100_000, Phase.RECEIVING),
        (request("/wait"), Phase.RUNNING),
        (request("/wait") + request()[:9], Phase.RUNNING),
        (request("/large"), Phase.UNREAD),
        (b"\0", Phase.CLOSING),
    ],
)
async def test_a_connection_knows_what_it_is_doing(sent, phase):
    """Also while a second request arrives behind one that runs."""
    async with worker() as opened:
        _, connection = await opened.connect(sent)

        assert connection.phase is phase


async def test_a_connection_that_waits_for_the_application_has_no_beginning():
    """Its `since` is a number, by which connections are ordered."""
    async with worker() as opened:
        _, connection = await opened.connect(request("/wait"))

        assert math.inf == connection.since


@pytest.mark.parametrize(
    ("sent", "size"),
    [
        (b"", 0),
        (request(), 0),
        (request(headers="X: " + "x" * 30_000)[:-4], 30_000),
        (request(headers="Content-Length: 60000\r\n") + b"x" * 50_000, 50_000),
        (request(headers="Content-Length: 300000\r\n") + b"x" * 100_000, KEPT_BYTES),
        (request("/wait") + request(headers="Content-Length: 30000\r\n") + b"x" * 30_000, 30_000),
        (request("/large"), LARGE),
    ],
)
async def test_a_connection_counts_what_it_keeps_in_memory(sent, size):
    """A head, a body that is being read, a request behind another one, and a whole response until all is sent."""
    async with worker() as opened:
        _, connection = await opened.connect(sent)

        assert size <= connection.buffered_bytes() <= size + 1_000


async def test_an_idle_connection_keeps_nothing_of_its_last_request():
    """Neither the head nor a body that the application has not read."""
    sent = request("/unread", headers="X: " + "x" * 50_000 + "\r\nContent-Length: 60000\r\n") + b"x" * 60_000
    async with worker() as opened:
        await opened.connect(sent)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(8):
                _, connection = await opened.connect(sent)
                assert connection.phase is Phase.IDLE
                assert 0 == connection.buffered_bytes()
            gc.collect()

            assert tracemalloc.get_traced_memory()[0] - before < 8 * 40_000
        finally:
            tracemalloc.stop()


async def test_the_oldest_idle_connection_is_closed_for_a_new_one():
    """Its client sees the end of the connection, not a reset."""
    async with worker(max_connections=2) as opened:
        client, oldest = await opened.connect(request())
        await opened.connect(request())
        _, newest = await opened.connect()

        assert oldest not in opened.open
        assert newest in opened.open
        assert (await received(client)).endswith(b"\r\n\r\nxx")


async def test_an_unread_response_makes_room_for_others():
    """The client that reads nothing is closed, and a response that is larger than the limit is, too."""
    async with worker(max_buffered_bytes=LARGE * 3 // 2) as opened:
        _, first = await opened.connect(request("/large"))
        assert [first] == opened.open
        _, second = await opened.connect(request("/large"))

        assert len(opened.open) == 1
        assert {first, second} > set(opened.open)


async def test_a_new_connection_is_answered_503_if_all_handlers_run():
    """The answer says when to retry, and that the connection closes."""
    async with worker(max_connections=2) as opened:
        for _ in range(2):
            await opened.connect(request("/wait"))
        client, _ = await opened.connect()
        answer = await received(client)

        assert b"HTTP/1.1 503 " == answer[:13]
        assert b"connection: close\r\n" in answer.lower()
        assert b"retry-after: 1\r\n" in answer.lower()
        opened.finish.set()


@pytest.mark.parametrize("sent", [b"", request(), request()[:9], request(headers="X: " + "x" * 60_000)[:-4], b"\0"])
async def test_a_closed_connection_leaves_no_garbage(sent):
    """Its memory is free at once. The garbage collector may run much later, after thousands of connections."""
    async with worker() as opened:
        client, connection = await opened.connect(sent)
        reference = weakref.ref(connection)
        del connection
        gc.disable()
        try:
            client.close()
            for _ in range(20):
                await asyncio.sleep(0.001)

            assert reference() is None
        finally:
            gc.enable()
