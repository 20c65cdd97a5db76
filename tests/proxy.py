"""A way to PostgreSQL that counts round trips, can be frozen or cut, and can lose answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, urlsplit

_COMMITTED = b"Z\0\0\0\5I"
"""PostgreSQL waits for the next statement, outside of any transaction: what was asked before is committed."""


@dataclass(slots=True)
class _Link:
    """One connection."""

    is_losing: bool = False
    """Whether its client is not to hear of what it has asked for last."""


class Proxy:
    """Takes connections at a port of loopback, and passes what comes on to a server's socket."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._user, self._name = parts.username, parts.path
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving = 0
        self._lost: bytes | None = None
        self._how: Literal["cut", "silent"] = "cut"
        self.url = ""
        self.round_trips = 0
        """Times that a client has waited for the server: each ends a group of messages with one that asks for it."""
        self.answers_lost = 0
        """Statements that were committed while their client was not to hear of it."""

    def freeze(self) -> None:
        """Pass nothing on and end nothing: whoever asks waits."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what has come meanwhile, and all that comes."""
        self._flowing.set()

    def cut(self) -> None:
        """End all connections at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def lose_answers(self, to: bytes, how: Literal["cut", "silent"]) -> None:
        """Have what contains this carried out, and keep the answer back.

        Args:
            to: What a client sends, such as a value.
            how: Whether the connection ends when the answer has come, or stays and says nothing.
        """
        self._lost, self._how = to, how

    def keep_answers(self) -> None:
        """Lose no more of them."""
        self._lost = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        """The proxy, reachable by its URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._user}@127.0.0.1:{port}{self._name}?sslmode=disable"
        try:
            yield self
        finally:
            server.close()
            self.thaw()
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
