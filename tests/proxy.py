"""A proxy before PostgreSQL that counts round trips, can freeze or cut connections, and can withhold answers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Call = Callable[[Callable[[], None]], object]
"""Calls a function in the thread of a proxy."""

_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16/"
"""The question of a client whether the server speaks TLS."""

_COMMITTED = b"Z\0\0\0\5I"
"""PostgreSQL is ready for the next statement, outside of a transaction: the one before is committed."""


@dataclass(slots=True)
class _Link:
    """One connection."""

    is_forgotten: bool = False
    """Whether all that comes on it is dropped."""

    is_losing: bool = False
    """Whether the answers to its client are withheld."""


class Proxy:
    """Accepts connections on a port of the loopback interface, and forwards them to the socket of a server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._user, self._name = parts.username, parts.path
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._logging_in = asyncio.Event()
        self._logging_in.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._links: list[_Link] = []
        self._serving = 0
        self._lost: bytes | None = None
        self._how: Literal["cut", "silent"] = "cut"
        self.url = ""
        self.round_trips = 0
        """Round trips of all clients: the Sync and Query messages that were forwarded."""
        self.answers_lost = 0
        """Statements that were committed and whose answer was withheld."""
        self.logins_held = 0
        """Clients that wait to be logged in, also those that have gone: like PostgreSQL, it does not notice that."""

    def hold_logins(self) -> None:
        """Let new connections wait for their login. An SSLRequest is answered."""
        self._logging_in.clear()

    def let_in(self) -> None:
        """Let those log in that wait, and all others."""
        self._logging_in.set()

    def freeze(self) -> None:
        """Forward nothing and close nothing: clients wait."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward what has been received since, and everything from now on."""
        self._flowing.set()

    def forget(self) -> None:
        """Drop all that comes on the present connections, as a NAT does that has forgotten them. New ones work."""
        for link in self._links:
            link.is_forgotten = True

    def cut(self) -> None:
        """Close all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def lose_answers(self, to: bytes, how: Literal["cut", "silent"]) -> None:
        """Forward a message that contains this, and withhold the answer.

        Args:
            to: Bytes that a client sends, such as a value.
            how: Whether the connection is closed when the answer arrives, or stays open and silent.
        """
        self._lost, self._how = to, how

    def keep_answers(self) -> None:
        """Withhold no more answers."""
        self._lost = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        """The proxy, listening at its URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._user}@127.0.0.1:{port}{self._name}?sslmode=disable"
        try:
            yield self
        finally:
            server.close()
            self.thaw()
            self.let_in()
            while self._serving:
                self.cut()
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving += 1
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
            self._writers.add(server_writer)
            link = _Link()
            self._links.append(link)
            await asyncio.gather(
                self._to_server(reader, server_writer, link), self._to_client(server_reader, writer, link)
            )
        finally:
            writer.transport.abort()
            self._serving -= 1

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        messages = b""
        is_first = True
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if is_first and data != _SSL_REQUEST:
                    self.logins_held += 1
                    await self._logging_in.wait()
                    self.logins_held -= 1
                if link.is_forgotten:
                    continue
                link.is_losing |= self._lost is not None and self._lost in data
                writer.write(data)
                messages += data
                while len(messages) >= 5:
                    kind = b"" if is_first else messages[:1]  # the first message has no kind
                    length = len(kind) + int.from_bytes(messages[len(kind) : len(kind) + 4])
                    if len(messages) < length:
                        break
                    self.round_trips += kind in (b"S", b"Q")
                    messages, is_first = messages[length:], False
        self._close(writer)

    async def _to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        lost = b""
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if link.is_forgotten:
                    continue
                if not link.is_losing:
                    writer.write(data)
                    continue
                lost += data
                if lost.endswith(_COMMITTED):
                    self.answers_lost += 1
                    if self._how == "cut":
                        writer.transport.abort()
        self._close(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._writers.discard(writer)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the database at this URL."""
    async with Proxy(url).listening() as proxy:
        yield proxy


@contextmanager
def proxy_beside(url: str) -> Iterator[tuple[Proxy, Call]]:
    """A proxy to the database in its own thread, and a function that calls another one in that thread."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    started: SimpleQueue[Proxy] = SimpleQueue()

    async def run() -> None:
        async with proxied(url) as proxy:
            started.put(proxy)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        yield started.get(timeout=10), loop.call_soon_threadsafe
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
