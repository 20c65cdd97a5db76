"""Uvicorn's server inside one worker: its heartbeat, and how it shuts down."""

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from app.state_keys import CLIENTS_OBSERVER, DRAINING, HEARTBEAT
from app.worker.connection import Connection
from app.worker.limits import Limits, State
from app.worker.stage import Stage
from app.worker.status import WorkerStatus

HEARTBEAT_SECONDS = 0.5
"""The interval of the heartbeat. A connection's timeout is noticed at most this much late."""

FORCED_LIFESPAN_SECONDS = 1.0
"""How long the lifespan may take to end after SIGQUIT, which the master sends on SIGINT."""

_COLLECTOR_THRESHOLDS = (5_000, 20, 50)
"""For `gc.set_threshold`. A request leaves no garbage. A closed connection leaves about 24 objects with 15 KB that
refer to each other: with a first threshold of 50,000 these came to 14 MB in each worker."""

_KERNEL_BYTES = 64 * 1024
"""The most that the kernel keeps of a response beyond what it may send. By default it keeps up to 4 MiB for each
connection, which are not in the sum that MAX_BUFFERED_BYTES limits. A shorter response still takes one write."""

_MAX_PENDING = 1_000
"""How many connections that wait to be accepted a draining worker accepts."""


class Server(uvicorn.Server):
    """Serves in one worker: sends heartbeats until the process ends, and loses no request when it stops."""

    server_state: State

    def __init__(self, config: uvicorn.Config, *, limits: Limits, status: WorkerStatus, max_requests: int) -> None:
        super().__init__(config)
        self.server_state = State(limits)
        self._status = status
        self._max_requests = max_requests

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, accept connections, and report SERVING."""
        gc.collect()
        for listener in sockets or []:
            if listener.family != socket.AF_UNIX:
                # The connections inherit it. A write to a Unix socket keeps no more than 208 KiB in any case.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _KERNEL_BYTES)
        self.lifespan.state[DRAINING] = asyncio.Event()
        await super().startup(sockets)
        # What exists now exists until the process ends, so the garbage collector need not look at it again.
        gc.freeze()
        gc.set_threshold(*_COLLECTOR_THRESHOLDS)
        self._status.report_stage(Stage.SERVING)
        self._heartbeat()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close the application.

        The order of what happens:

        1. DRAINING is reported. The event that all requests have in their state is set, and the response to a
           request that begins from now on says `Connection: close`.
        2. Connections that wait to be accepted are accepted. The listeners are closed.
        3. Idle connections are closed after LINGER_SECONDS without a request.
        4. Requests in flight have `graceful_seconds`. Then they are cancelled and answered 503.
        5. The application's lifespan ends. A worker that still runs after Gunicorn's
           `graceful_timeout`, which is 3 seconds longer, is killed by the master.

        After SIGQUIT nothing is waited for, except FORCED_LIFESPAN_SECONDS for the lifespan.
        """
        self._status.report_stage(Stage.DRAINING)
        self.lifespan.state[DRAINING].set()
        self.server_state.draining = True
        # No await between accepting and `super().shutdown`, which closes the listeners first.
        serving_pending = asyncio.ensure_future(self._serve_accepted(_accept_pending(sockets or [])))
        await super().shutdown(sockets)
        await serving_pending
        if self.force_exit:
            # Uvicorn does not end the lifespan then, and a lifespan that is cancelled is logged as an error.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), FORCED_LIFESPAN_SECONDS)

    async def _serve_accepted(self, clients: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for client in clients:
            # The client may have closed the connection already.
            with suppress(OSError):
                await loop.connect_accepted_socket(self._make_connection, client)

    def _make_connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def _heartbeat(self) -> None:
        """Tell the master that the event loop runs, and handle the timeouts of connections."""
        loop = asyncio.get_running_loop()
        loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)
        self._status.heartbeat()
        if (report := self.lifespan.state.get(HEARTBEAT)) is not None:
            report(draining=self.server_state.draining)
        if self._status.stage == Stage.SERVING and self.server_state.total_requests >= self._max_requests:
            self._status.report_stage(Stage.RECYCLING)
        if not self._status.master_is_alive():
            # It was killed. A new master could not listen as long as this worker does.
            self.should_exit = True
        now = loop.time()
        for connection in [c for c in self.server_state.connections if c.deadline < now]:  # type: ignore[union-attr]
            connection.handle_timeout()  # type: ignore[union-attr]
        self.server_state.totals.measure(self.lifespan.state.get(CLIENTS_OBSERVER))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Keep the signal handlers until the process ends: a late signal must not kill it during its shutdown."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain, or on SIGQUIT end at once.

        Uvicorn would raise the signal again at the end, which kills the process
        before its exit handlers have run.
        """
        self.should_exit = True
        if sig == signal.SIGQUIT:
            self.force_exit = True


def _accept_pending(sockets: list[socket.socket]) -> list[socket.socket]:
    """Accept the connections that wait. If they were not accepted, closing the last listener would reset them."""
    accepted: list[socket.socket] = []
    for listener in sockets:
        with suppress(OSError):
            while len(accepted) < _MAX_PENDING:
                connection, _ = listener.accept()
                connection.setblocking(False)
                accepted.append(connection)
    return accepted
