"""A way to PostgreSQL that counts round trips, and can be frozen or cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit


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
        self.url = ""
        self.round_trips = 0
        """Times that a client has waited for the server: each ends a group of messages with one that asks for it."""

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
            await asyncio.gather(
                self._pass_on(reader, server_writer, counts=True), self._pass_on(server_reader, writer)
            )
        finally:
            writer.transport.abort()
            self._serving -= 1

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False
    ) -> None:
        messages = b""
        is_first = True
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data)
                messages += data if counts else b""
                while len(messages) >= 5:
                    kind = b"" if is_first else messages[:1]  # the first message has no kind
                    length = len(kind) + int.from_bytes(messages[len(kind) : len(kind) + 4])
                    if len(messages) < length:
                        break
                    self.round_trips += kind in (b"S", b"Q")
                    messages, is_first = messages[length:], False
        writer.close()
        self._writers.discard(writer)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the database at this URL."""
    async with Proxy(url).listening() as proxy:
        yield proxy
