"""Uvicorn's server inside one worker: its heartbeat, and how it ends."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from app.worker.connection import Connection
from app.worker.limits import State
from app.worker.stage import Stage

if TYPE_CHECKING:
    from app.worker import Worker

HEARTBEAT_SECONDS = 0.5
"""How often the master is shown that the loop runs, and how late a deadline may be noticed."""

_COLLECTOR_THRESHOLDS = (5_000, 20, 50)
"""Objects that come to stay until the youngest are looked through, and so on. A request leaves none. A closed
connection leaves two dozen with 15 KB that refer to each other: at 50,000 they came to 14 MB a worker."""

_MOST_PENDING = 1_000


class Server(uvicorn.Server):
    """Serves in one worker: beats until the process ends, and loses no request when it stops."""

    server_state: State

    def __init__(self, worker: "Worker") -> None:
        super().__init__(worker.config)
        self.server_state = State(worker.limits)
        self._worker = worker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, accept connections, and tell the master."""
        gc.collect()
        await super().startup(sockets)
        # What lives now lives until the end; the collector need not look at it again.
        gc.freeze()
        gc.set_threshold(*_COLLECTOR_THRESHOLDS)
        self._worker.enter(Stage.SERVING)
        self._beat()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve what has come so far, then close the application.

        Requests that begin from now on find `draining` in their state.
        """
        self._worker.enter(Stage.DRAINING)
        self.lifespan.state["draining"] = True
        self.server_state.draining = True
        # Closing the listeners comes next, with nothing in between.
        adopting = asyncio.ensure_future(self._adopt(_accept_pending(sockets or [])))
        await super().shutdown(sockets)
        await adopting

    async def _adopt(self, accepted: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for client in accepted:
            # It may be gone already.
            with suppress(OSError):
                await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def _beat(self) -> None:
        """Show that the loop runs, and close connections whose time is over."""
        loop = asyncio.get_running_loop()
        loop.call_later(HEARTBEAT_SECONDS, self._beat)
        worker = self._worker
        if worker.stage == Stage.SERVING and self.server_state.total_requests >= worker.max_requests:
            worker.enter(Stage.WORN)
        worker.notify()
        if os.getppid() != worker.ppid:
            # The master was killed. Another one could not listen while this worker does.
            self.should_exit = True
        now = loop.time()
        for connection in [c for c in self.server_state.connections if c.deadline < now]:  # type: ignore[union-attr]
            connection.expire()  # type: ignore[union-attr]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Keep the handlers until the process has ended: a signal that comes late must not kill it halfway."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain; on SIGQUIT end at once.

        Uvicorn would raise the signal once more at the end, which kills the
        process before its exit handlers have run.
        """
        self.should_exit = True
        if sig == signal.SIGQUIT:
            self.force_exit = True


def _accept_pending(sockets: list[socket.socket]) -> list[socket.socket]:
    """The connections that wait to be accepted: the last listener to close would reset them."""
    accepted: list[socket.socket] = []
    for listener in sockets:
        with suppress(OSError):
            while len(accepted) < _MOST_PENDING:
                connection, _ = listener.accept()
                connection.setblocking(False)
                accepted.append(connection)
    return accepted
