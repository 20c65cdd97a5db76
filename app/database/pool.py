"""The connections of one worker: a bounded number, used last in first out, and a bounded queue of waiters."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import NoReturn, Protocol

from app.database.connection import Connection
from app.errors import OverloadedError, PoolExhaustedError

WAITING_PER_CONNECTION = 20
"""How many requests may wait for each connection; the next one is refused. With statements of
20 ms the last of them waits for 0.4 s. See docs/decisions/0040-load-shedding.md."""

REFUSAL_SECONDS = 0.005
"""The least time between two refusals. A client that retries at once would otherwise be refused so often
that the worker does little else: a refusal takes a third of the CPU time of an answer."""

REPLACE_SECONDS = 1.0
"""The least time between two replacements of all connections."""

CLOSE_SECONDS = 1.0
"""How long closing an idle connection may take when the worker stops."""

_TICK_SECONDS = 0.001
"""The event loop's clock is no finer, and a timer may run a moment early."""


class PoolObserver(Protocol):
    """Receives the pool's events, for the metrics."""

    def pool_opened(self) -> None:
        """A connection was opened."""

    def pool_closed(self) -> None:
        """A connection was closed by the service or found closed by the server."""

    def pool_waited(self, seconds: float) -> None:
        """A request got a connection after waiting this long."""

    def pool_timed_out(self) -> None:
        """A request got no connection within its time."""

    def request_shed(self, reason: str) -> None:
        """A request was refused because there are too many."""


@dataclass(slots=True, kw_only=True)
class PoolState:
    """The pool at one moment: numbers of connections, and of requests that wait for one."""

    size: int
    open: int
    in_use: int
    waiting: int


class Pool:
    """Up to `size` connections. Each serves one request at a time; the one used last is used next.

    A request takes a slot, and with it an idle connection or a new one. When all slots are
    taken, requests wait in the order of their arrival, all equally long at most.

    Not a semaphore with `asyncio.timeout` around it: that sets up and takes down a timer for
    each request that waits, and under load each one waits. Here one timer serves all waiters.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], *, size: int, wait_seconds: float, observer: PoolObserver
    ) -> None:
        self.size = size
        self._connect = connect
        self._wait_seconds = wait_seconds
        self._observer = observer
        self._idle: list[Connection] = []
        self._open = 0
        self._free_slots = size
        """Greater than 0 only while no request waits."""
        self._waiters: deque[tuple[float, asyncio.Future[None]]] = deque()
        """When each waiter arrived, and the future that gives it a slot."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_refusal = float("-inf")
        self._replaced_at = float("-inf")
        self._is_closed = False

    @property
    def state(self) -> PoolState:
        """The pool at this moment."""
        return PoolState(
            size=self.size, open=self._open, in_use=self.size - self._free_slots, waiting=len(self._waiters)
        )

    async def acquire(self, *, sheddable: bool = True) -> Connection:
        """Take a connection; wait for one if all are in use.

        Args:
            sheddable: Whether this request is refused at once when too many wait already.

        Raises:
            OverloadedError: Too many requests wait already.
            PoolExhaustedError: No connection came free in time.
            DatabaseUnavailableError: A new connection could not be opened.
        """
        if self._free_slots:
            self._free_slots -= 1
        else:
            await self._wait_for_slot(sheddable=sheddable)
        return self._take_idle() or await self._open_new()

    def release(self, connection: Connection) -> None:
        """Return a connection that `acquire` gave. A closed one, or one inside a transaction, is not used again."""
        if self._is_closed or connection.is_closed() or connection.is_in_transaction():
            self._discard(connection)
        else:
            self._idle.append(connection)
            if (oldest := self._idle[0]).expires_at < perf_counter():
                # It is used last, and under a low load never again.
                self._idle.remove(oldest)
                self._discard(oldest)
        self._free_slot()

    def replace_all(self) -> None:
        """Replace every connection that is open now before it is used again, at most once in REPLACE_SECONDS."""
        now = perf_counter()
        if now > self._replaced_at + REPLACE_SECONDS:
            self._replaced_at = now

    async def close(self) -> None:
        """Close the idle connections now, and each other one when it is released."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close(timeout=CLOSE_SECONDS) for connection in idle), return_exceptions=True)
        for connection in idle:
            self._discard(connection)

    def _take_idle(self) -> Connection | None:
        """The usable connection that was used last. Asking the driver takes no round trip, unlike a pre-ping."""
        now = perf_counter()
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed() and self._replaced_at <= connection.opened_at and now < connection.expires_at:
                return connection
            self._discard(connection)
        return None

    async def _open_new(self) -> Connection:
        try:
            connection = await self._connect()
        except BaseException:
            self._free_slot()
            raise
        self._open += 1
        self._observer.pool_opened()
        return connection

    def _discard(self, connection: Connection) -> None:
        connection.terminate()
        self._open -= 1
        self._observer.pool_closed()

    def _free_slot(self) -> None:
        """Give a slot to the first waiter, or make it free."""
        while self._waiters:
            _, slot = self._waiters.popleft()
            if not slot.done():  # a cancelled waiter stays in the queue until its task runs
                slot.set_result(None)
                return
        self._free_slots += 1

    async def _wait_for_slot(self, *, sheddable: bool) -> None:
        if sheddable and len(self._waiters) >= self.size * WAITING_PER_CONNECTION:
            await self._refuse()
        started = perf_counter()
        slot = asyncio.get_running_loop().create_future()
        waiter = (started, slot)
        self._waiters.append(waiter)
        if self._timer is None:
            self._start_timer(self._wait_seconds)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.cancelled():
                with suppress(ValueError):
                    self._waiters.remove(waiter)
            elif slot.exception() is None:
                # The slot was given at the moment of the cancellation.
                self._free_slot()
            raise
        self._observer.pool_waited(perf_counter() - started)

    def _start_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(seconds, _TICK_SECONDS), self._expire_waiters)

    def _expire_waiters(self) -> None:
        """End the waits that have lasted too long, and set the timer for the next waiter."""
        now = perf_counter()
        self._timer = None
        while self._waiters:
            started, slot = self._waiters[0]
            if (left := started + self._wait_seconds - now) > 0:
                self._start_timer(left)
                return
            self._waiters.popleft()
            if not slot.done():
                self._observer.pool_timed_out()
                self._observer.request_shed("queue_timeout")
                slot.set_exception(PoolExhaustedError())

    async def _refuse(self) -> NoReturn:
        """Refuse, at least REFUSAL_SECONDS after the refusal before, and no later than a wait would have ended."""
        now = perf_counter()
        self._last_refusal = min(max(now, self._last_refusal + REFUSAL_SECONDS), now + self._wait_seconds)
        self._observer.request_shed("queue_full")
        await asyncio.sleep(self._last_refusal - now)
        raise OverloadedError
