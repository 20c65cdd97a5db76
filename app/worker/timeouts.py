"""How long a connection waits for its client, and how it closes without losing a request or a response."""

import asyncio
import math
from abc import abstractmethod
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.worker.limits import LINGER_SECONDS, State


class ClientTimeouts(HttpToolsProtocol):
    """Uvicorn's protocol with one deadline for each connection.

    The server's heartbeat calls `handle_timeout` once `deadline` has passed. So a
    request costs two clock readings, and no timer.
    """

    server_state: State
    cycle: RequestResponseCycle | None  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = server_state.limits
        self.deadline = math.inf
        """By the loop's clock: when the client must have done what the connection waits for."""
        self._receiving = False
        """A request has begun to arrive and has not arrived completely."""
        self._unsent_bytes = 0
        self._closing = False
        """Nothing more is answered on this connection."""

    @abstractmethod
    def _refuse(self, status: HTTPStatus) -> None:
        """Answer the request without the application, and close."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._set_deadline(LINGER_SECONDS if self.server_state.draining else self.limits.receive_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the pipelined requests: their client is gone."""
        self.pipeline.clear()
        self.deadline = math.inf
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take its response."""
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._set_deadline(self.limits.receive_seconds)

    def resume_writing(self) -> None:
        """Wait for what the connection waited for before the write buffer was full."""
        super().resume_writing()
        if self._closing:
            return
        if self._receiving:
            self._set_deadline(self.limits.receive_seconds)
        elif self.cycle is None or self.cycle.response_complete:
            self._wait_for_next_request()
        else:
            self.deadline = math.inf

    def shutdown(self) -> None:
        """Begin to drain: the next response says `Connection: close`.

        An idle connection stays open for LINGER_SECONDS. If it were closed at
        once, a request that its client is just sending would be lost.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # A response that has started has already said that the connection is kept.
            if not cycle.response_started:
                cycle.keep_alive = False
        elif not self._receiving:
            self.deadline = min(self.deadline, self.loop.time() + LINGER_SECONDS)

    def handle_timeout(self) -> None:
        """Act on a deadline that has passed."""
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent_bytes:
            # The client is slow, but it reads.
            self._unsent_bytes = unsent
            self._set_deadline(self.limits.receive_seconds)
        elif self._closing or self.flow.write_paused:
            self.deadline = math.inf
            self.transport.abort()
        elif not self._receiving:
            self.close()
        elif self.flow.read_paused:
            # The application is slow to read, not the client to send.
            self._set_deadline(self.limits.receive_seconds)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def close(self) -> None:
        """Close when everything written has been sent.

        While the client is still sending, only the sending side is closed, and
        input is discarded for LINGER_SECONDS. Closing both sides would reset the
        connection, and the client could lose the response.
        """
        if self._closing or self.transport.is_closing():
            return
        self._closing = True
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._set_deadline(LINGER_SECONDS)
        if self._receiving and self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def _wait_for_next_request(self) -> None:
        """Start the idle timeout, unless a request is arriving or a response is still being sent."""
        if not self._receiving and not self.flow.write_paused:
            self._set_deadline(LINGER_SECONDS if self.server_state.draining else self.limits.keep_alive_seconds)
