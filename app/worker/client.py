"""A connection as its worker's totals see it: what it is doing, what it buffers, and how it is closed for others."""

import asyncio
import fcntl
import math
import struct
import termios
from http import HTTPStatus

from app.state_keys import BODY_KEPT
from app.worker.timeouts import ClientTimeouts
from app.worker.totals import Phase
from app.worker.waits import wait_seconds

_COUNT = struct.Struct("i")

_LARGE_BYTES = 32 * 1024
"""A larger part of a response counts against MAX_BUFFERED_BYTES as soon as it is written."""


class LimitedClient(ClientTimeouts):
    """Uvicorn's protocol within the limits on all connections of a worker."""

    _head_bytes = 0
    """What has arrived of a head that is incomplete."""

    _counted_bytes = 0
    """What has arrived since the connection was made, except of requests that arrived at once."""

    _response_bytes = 0
    """The size of the parts of a response that stay in memory until they are sent completely."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._response_transport.write = self._write_response

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no reference cycle: the garbage collector may run only after thousands of connections."""
        self.cycle = None  # it has been told already, and Uvicorn would tell it again
        super().connection_lost(exc)
        self._response_transport.release()

    @property
    def phase(self) -> Phase:
        """What the connection is doing."""
        if self._closing or self.transport.is_closing():
            return Phase.CLOSING
        if self.flow.write_paused:
            return Phase.UNREAD
        running = self._running
        if running is None:
            return Phase.RECEIVING if self._receiving else Phase.IDLE
        # A handler that has begun before the body has arrived can only wait for it.
        return Phase.RECEIVING if running.more_body else Phase.RUNNING

    @property
    def since(self) -> float:
        """When the phase has begun, or when the client has last made progress in it. Infinite without a deadline."""
        if self._wait is None or self.deadline == math.inf:
            return self.deadline
        return self.deadline - wait_seconds(self._wait, self.limits)

    @property
    def has_answered(self) -> bool:
        """Whether a request of this connection was answered before."""
        return self._has_answered

    def has_input(self) -> bool:
        """Whether something has arrived that was not read yet."""
        unread = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(_COUNT.size))
        return bool(_COUNT.unpack(unread)[0])

    def buffered_bytes(self) -> int:
        """The bytes of the requests, and those of the response that are in memory until all are sent.

        What the application has got of a body counts up to `max_body_bytes`, and completely if the endpoint keeps it.
        """
        unsent: int = self.transport.get_write_buffer_size()
        if not unsent:
            self._response_bytes = 0
        requests = self._head_bytes
        for cycle in {self.cycle, self._running, *(cycle for cycle, _ in self.pipeline)}:
            if cycle is not None:
                handed_on = cycle.handed_on_bytes
                if BODY_KEPT not in cycle.scope["state"]:
                    handed_on = min(handed_on, self.limits.max_body_bytes)
                requests += cycle.head_bytes + len(cycle.body) + handed_on
        return requests + max(unsent, self._response_bytes)

    def moved_bytes(self) -> int:
        """A number that changes when the client sends or reads."""
        return self._counted_bytes - int(self.transport.get_write_buffer_size())

    def shed(self) -> None:
        """Close at once, and leave the worker's connections."""
        self._closing = True
        self.connections.discard(self)
        self._response_transport.drop_writes()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
        self._update_deadline()

    def _enter(self) -> None:
        """Be refused if the worker has too many connections, and none that can be closed instead."""
        if not self.server_state.totals.admit(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            self._after_event()

    def _count_received(self, size: int) -> None:
        """Count a part of a request that has not arrived completely, or that waits behind another one."""
        self._counted_bytes += size
        self.server_state.totals.buffered(size)

    def _write_response(self, data: bytes) -> None:
        if self._probed_bytes:
            data, self._probed_bytes = data[self._probed_bytes :], 0
        self.transport.write(data)
        if len(data) > _LARGE_BYTES and self.transport.get_write_buffer_size():
            self._response_bytes += len(data)
            self.server_state.totals.buffered(len(data))
