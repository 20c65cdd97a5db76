"""How long a connection waits for its client, and how it closes without losing a request or a response."""

import asyncio
import math
from abc import abstractmethod
from collections import deque
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.worker.limits import State
from app.worker.response import RequestCycle, ResponseTransport
from app.worker.waits import (
    APPLICATION,
    CLOSE,
    FIRST_REQUEST,
    HALF_CLOSED,
    LAST_REQUEST,
    NEXT_REQUEST,
    READER,
    REST_OF_REQUEST,
    Wait,
    wait_seconds,
)

_RESPONSE_BEGINNING = b"HTTP/1.1 "


class ClientTimeouts(HttpToolsProtocol):
    """Uvicorn's protocol with one deadline for each connection.

    Every event ends with `_update_deadline`, which derives the deadline from the state of the connection. Nothing
    else sets it. The server's heartbeat calls `handle_timeout` once the deadline has passed. So a request costs one
    clock reading, and no timer.
    """

    server_state: State
    cycle: RequestCycle | None  # type: ignore[assignment]
    """The latest request whose head has arrived, until it is answered and has arrived completely."""

    pipeline: deque[tuple[RequestCycle, Any]]  # type: ignore[assignment]
    """The requests that have not begun, the oldest last, each with the application that will answer it."""

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
        """By the loop's clock: when what the connection waits for must have happened."""
        self._wait: Wait | None = None
        """What `deadline` was set for. None if it must be set again."""
        self._request_seconds_left = 0.0
        """What is left of the time for the request that is arriving. While the connection waits for something else,
        this does not decrease."""
        self._unsent_bytes = 0
        self._receiving = False
        """A request has begun to arrive and has not arrived completely."""
        self._input_refused = False
        """Input is discarded: a request was refused, and the connection closes after its answer."""
        self._half_closed = False
        """The client has sent its last byte. It may still read."""
        self._running: RequestCycle | None = None
        """The request that the application answers."""
        self._probed_bytes = 0
        """How much of the next response has been written to find out whether the client is gone."""
        self._closing = False
        """Nothing more is answered on this connection."""
        self._has_answered = False
        """A request of this connection was answered."""

    @abstractmethod
    def _refuse(self, status: HTTPStatus) -> None:
        """Answer the request that is arriving with this status, and close."""

    @abstractmethod
    def _after_event(self) -> None:
        """Do what the state now allows, then update the deadline."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._response_transport = ResponseTransport(transport, close=self.close, resume_reading=self._resume_reading)
        self._update_deadline()

    def pause_writing(self) -> None:
        """Wait for the client to take its response."""
        super().pause_writing()
        self._after_event()

    def resume_writing(self) -> None:
        """Go on: the client has taken most of what was written."""
        super().resume_writing()
        self._after_event()

    def handle_timeout(self) -> None:
        """Act on a deadline that has passed."""
        wait = self._wait
        if wait is READER or wait is CLOSE:
            if self.transport.get_write_buffer_size() < self._unsent_bytes:
                self._wait = None  # The client is slow, but it reads: it gets the time again.
            else:
                self.transport.abort()
        elif wait is HALF_CLOSED:
            self._probe()
        elif wait is REST_OF_REQUEST:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.close()
        self._after_event()

    def close(self) -> None:
        """Close when everything written has been sent. What the application still writes is dropped.

        While the client may still be sending, only the sending side is closed, and
        input is discarded for LINGER_SECONDS. Closing both sides would reset the
        connection, and the client could lose the response.
        """
        if self._closing or self.transport.is_closing():
            return
        self._closing = True
        self._response_transport.drop_writes()
        may_send = (self._receiving or self._input_refused) and not self._half_closed
        if may_send and self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()
        self._update_deadline()

    def _may_be_gone(self) -> bool:
        """Whether the running request only reads, and whether its client is gone can be found out by a probe."""
        cycle = self._running
        return (
            self._half_closed
            and cycle is not None
            and not cycle.response_started
            and cycle.is_safe
            and self._probed_bytes < len(_RESPONSE_BEGINNING)
        )

    def _probe(self) -> None:
        """Write a byte with which every response begins.

        A client that has closed the whole connection looks like one that has closed its sending side only, until
        something is written to it. Then it resets the connection, and the next write fails.
        """
        if self._may_be_gone():
            probed = self._probed_bytes
            self._probed_bytes += 1
            self._wait = None
            self.transport.write(_RESPONSE_BEGINNING[probed : probed + 1])

    def _resume_reading(self) -> None:
        """Read on, because the application has asked for the rest of a body."""
        if self.flow.read_paused:
            self.flow.resume_reading()
            self._update_deadline()

    def _update_deadline(self) -> None:
        """Derive the deadline from the state. It stays as it is while the connection waits for the same."""
        wait = self._current_wait()
        previous = self._wait
        if wait is previous:
            return
        self._wait = wait
        if wait is APPLICATION and previous is not REST_OF_REQUEST:
            self.deadline = math.inf
            return
        now = self.loop.time()
        if previous is REST_OF_REQUEST:
            self._request_seconds_left = self.deadline - now
        if wait is REST_OF_REQUEST:
            self.deadline = now + self._request_seconds_left
            return
        self.deadline = now + wait_seconds(wait, self.limits)
        if wait is READER or wait is CLOSE:
            self._unsent_bytes = self.transport.get_write_buffer_size()

    def _current_wait(self) -> Wait:
        flow = self.flow
        if flow.write_paused:
            return READER
        if self._closing:
            return READER if self.transport.get_write_buffer_size() else CLOSE
        is_busy = self._running is not None
        if self._receiving and not (is_busy and flow.read_paused):
            return REST_OF_REQUEST
        if is_busy:
            return HALF_CLOSED if self._half_closed and self._may_be_gone() else APPLICATION
        if self.server_state.draining:
            return LAST_REQUEST
        return NEXT_REQUEST if self._has_answered else FIRST_REQUEST

    def _start_request_time(self) -> None:
        """Give a request that begins to arrive its own time."""
        self._request_seconds_left = self.limits.receive_seconds
        if self._wait is REST_OF_REQUEST:
            self._wait = None
