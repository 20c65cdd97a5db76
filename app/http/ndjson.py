"""Streams rows as newline-delimited JSON, a chunk of rows at a time, however many there are."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Final, Protocol

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import RequestError, ShuttingDownError, root_cause
from app.http.etags import Versioned, with_etags
from app.http.responses import render
from app.http.streams import Streams
from app.rate_limits.clients import client_of_scope
from app.state_keys import CLIENT_DISCONNECTED, FAILURE_CODE, STREAM_BEGAN, STREAM_CUT, is_draining

MAX_STREAM_SECONDS: Final = 3600.0
"""How long a stream may take. It is cut then."""

MAX_RETRIES: Final = 5
"""How often in a row a chunk is read again, after a failure of the service."""

RETRY_SECONDS: Final = 1.0
"""The pause before that, if the failure does not say when to retry."""

_PIECE_ROWS: Final = 250
"""How many rows are rendered without a break, and sent as one part of the body."""

log = structlog.get_logger(__name__)


class Chunk(Protocol):
    """Some rows, and where the next ones begin."""

    @property
    def rows(self) -> Sequence[Versioned]:
        """The rows, maybe none, in the order of their ids."""

    @property
    def position(self) -> int | None:
        """The position after which the next chunk begins; None after the last chunk."""


class NdjsonResponse(Response):
    """A response with one row a line.

    No connection is held while the client reads: each chunk is read when the client has taken most of the chunk
    before, because `send` waits for that.

    The last line ends with a newline only if the response is complete. If a statement fails, the worker drains or
    MAX_STREAM_SECONDS are over, the body ends behind a line, without its newline and without the end that chunked
    encoding has: the client can tell that rows are missing, also behind a proxy that speaks HTTP/1.0, and go on
    after the last row that it has got.
    """

    media_type = "application/x-ndjson"

    def __init__(self, read_after: Callable[[int], Awaitable[Chunk]], *, position: int) -> None:
        """Stream the rows after a position.

        Args:
            read_after: Reads the chunk after a position, by one statement.
            position: Where the first chunk begins.
        """
        self.status_code = HTTPStatus.OK
        self.background = None
        self.init_headers()
        self._read_after = read_after
        self._start = position
        self._sent_rows = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # an ASGI application
        """Send the response. What fails before the first row is raised, and answered as any other failure is."""
        streams: Streams = scope["app"].state.streams
        with streams.admitted(client_of_scope(scope)):
            pieces, position = await self._read(streams, self._start)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            scope["state"][STREAM_BEGAN] = perf_counter()
            if scope["method"] == "HEAD":  # `answer_head` has set it back with the head
                await send({"type": "http.response.body", "body": b""})
                return
            try:
                async with asyncio.timeout(MAX_STREAM_SECONDS):
                    await self._send(scope, send, streams, pieces, position)
            except ShuttingDownError as error:
                self._cut(scope, HTTPStatus.OK, error.code)
            except asyncio.CancelledError:  # its client has disconnected, or takes nothing while the worker drains
                is_gone = CLIENT_DISCONNECTED in scope["state"]
                self._cut(scope, HTTPStatus.OK, "client_disconnected" if is_gone else ShuttingDownError.code)
                raise
            except TimeoutError:
                self._cut(scope, HTTPStatus.OK, "stream_timeout")
            except RequestError as error:
                scope["state"][FAILURE_CODE] = error.failure_code
                self._cut(scope, error.status, error.code, cause=root_cause(error))

    async def _send(
        self, scope: Scope, send: Send, streams: Streams, pieces: list[bytes], position: int | None
    ) -> None:
        newline = b""
        while True:
            for piece in pieces:
                if self._sent_rows and is_draining(scope["state"]):
                    raise ShuttingDownError
                await send({"type": "http.response.body", "body": newline + piece, "more_body": True})
                self._sent_rows += piece.count(b"\n") + 1
                newline = b"\n"
            if position is None:
                break
            pieces, position = await self._read_again(scope, streams, position)
        await send({"type": "http.response.body", "body": newline})

    async def _read_again(self, scope: Scope, streams: Streams, position: int) -> tuple[list[bytes], int | None]:
        """Read another chunk. A failure of the service may be over a moment later, so there are retries."""
        retries = 0
        while True:
            if is_draining(scope["state"]):
                raise ShuttingDownError
            try:
                return await self._read(streams, position)
            except RequestError as error:
                if error.status < HTTPStatus.INTERNAL_SERVER_ERROR or retries == MAX_RETRIES:
                    raise
                retries += 1
                pause = error.retry_after_seconds
                await asyncio.sleep(RETRY_SECONDS if pause is None else pause)

    async def _read(self, streams: Streams, position: int) -> tuple[list[bytes], int | None]:
        """Return the lines of the chunk after a position, without the last newline, and where the next one begins."""
        async with streams.turn:
            chunk = await self._read_after(position)
            return await _lines(chunk.rows), chunk.position

    def _cut(self, scope: Scope, status: HTTPStatus, code: str, *, cause: str | None = None) -> None:
        """End the response before it is complete. An end by design is no failure: its status is that of the head."""
        scope["state"][STREAM_CUT] = status.value
        write = log.warning if status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
        write("stream_cut", code=code, cause=cause, rows=self._sent_rows)


async def _lines(rows: Sequence[Versioned]) -> list[bytes]:
    """Return the rows as lines, some in each piece. Other requests run between two pieces."""
    pieces = []
    for first in range(0, len(rows), _PIECE_ROWS):
        pieces.append(b"\n".join([render(row) for row in with_etags(rows[first : first + _PIECE_ROWS])]))
        await asyncio.sleep(0)
    return pieces
