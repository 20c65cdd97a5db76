"""How long a connection waits for its client, and how it ends without losing a request or an answer."""

import asyncio
import math
from abc import abstractmethod
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.worker.limits import LINGER_SECONDS, State


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with one deadline a connection, whatever its client is waited for.

    The worker's heartbeat calls `expire` once `deadline` has passed. So a request
    costs two clock readings, and no timer.
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
        """By the loop's clock: when the client must have done what it is waited for."""
        self._receiving = False
        """A request has begun to arrive and has not arrived whole."""
        self._unsent_bytes = 0
        self._over = False

    @abstractmethod
    def _refuse(self, status: HTTPStatus) -> None:
        """Answer in the application's place, and close."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait(LINGER_SECONDS if self.server_state.draining else self.limits.receive_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the requests that nobody waits for any more."""
        self.pipeline.clear()
        self.deadline = math.inf
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take its answer."""
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._wait(self.limits.receive_seconds)

    def resume_writing(self) -> None:
        """Wait for whatever was waited for before."""
        super().resume_writing()
        if self._over:
            return
        if self._receiving:
            self._wait(self.limits.receive_seconds)
        elif self.cycle is None or self.cycle.response_complete:
            self._rest()
        else:
            self.deadline = math.inf

    def shutdown(self) -> None:
        """Begin to drain: the next answer says `Connection: close`.

        An idle connection stays open for a moment. Closing it at once would lose
        the request that its client may just be sending.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # An answer under way has promised to keep the connection.
            if not cycle.response_started:
                cycle.keep_alive = False
        elif not self._receiving:
            self.deadline = min(self.deadline, self.loop.time() + LINGER_SECONDS)

    def expire(self) -> None:
        """Do what is due once the deadline has passed."""
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent_bytes:
            self._unsent_bytes = unsent
            self._wait(self.limits.receive_seconds)
        elif self._over or self.flow.write_paused:
            self.deadline = math.inf
            self.transport.abort()
        elif not self._receiving:
            self.finish()
        elif self.flow.read_paused:
            # The application is slow to read, not the client to send.
            self._wait(self.limits.receive_seconds)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def finish(self) -> None:
        """Close when everything written has been sent.

        While the client is still sending, only this side is closed at first:
        closing both would reset the connection, and the answer could be lost.
        """
        if self._over or self.transport.is_closing():
            return
        self._over = True
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._wait(LINGER_SECONDS)
        if self._receiving and self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _wait(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def _rest(self) -> None:
        """Give an idle connection its time."""
        if not self._receiving and not self.flow.write_paused:
            self._wait(LINGER_SECONDS if self.server_state.draining else self.limits.keep_alive_seconds)
