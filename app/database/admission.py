"""Who may use a connection: one statement for each, and a bounded queue behind them."""

import asyncio
from collections import deque
from contextlib import suppress
from time import perf_counter
from typing import NoReturn, Protocol

from app.errors import OverloadedError, PoolExhaustedError

WAITING_PER_CONNECTION = 20
"""How many requests may wait for each connection; the next one is refused. With statements of
20 ms the last of them waits for 0.4 s. See docs/decisions/0040-load-shedding.md."""

REFUSAL_SECONDS = 0.005
"""How far apart refusals are. A client that asks again at once would otherwise be refused so often that
the worker does little else: a refusal takes a third of what an answer does."""

_TICK_SECONDS = 0.001
"""The event loop's clock is no finer, and may wake a moment early."""


class QueueObserver(Protocol):
    """Who wants to know what becomes of requests that must wait."""

    def pool_waited(self, seconds: float) -> None:
        """A connection came free after so long."""

    def pool_timed_out(self) -> None:
        """A request gave up waiting."""

    def request_shed(self, reason: str) -> None:
        """A request was refused because there are too many."""


class Admission:
    """Places for statements, given in order of arrival; nobody waits for one longer than the others may.

    Not a semaphore with `asyncio.timeout` around it: that sets up and takes down a timer
    for each request that waits, and under load each one waits. Here one timer watches the first in the queue.
    """

    def __init__(self, places: int, *, wait_seconds: float, observer: QueueObserver) -> None:
        self.places = places
        self._free = places
        """More than none only while nobody waits."""
        self._wait_seconds = wait_seconds
        self._observer = observer
        self._queue: deque[tuple[float, asyncio.Future[None]]] = deque()
        """When each began to wait, and what it waits for."""
        self._timer: asyncio.TimerHandle | None = None
        self._refused_last = float("-inf")

    @property
    def taken(self) -> int:
        """Places in use."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def enter(self, *, may_be_shed: bool = True) -> None:
        """Take a place, and wait for one if need be.

        Raises:
            OverloadedError: Too many wait already.
            PoolExhaustedError: No place came free in time.
        """
        if self._free:
            self._free -= 1
            return
        if may_be_shed and len(self._queue) >= self.places * WAITING_PER_CONNECTION:
            await self._refuse()
        await self._wait()

    def leave(self) -> None:
        """Give a place back, to the first in the queue."""
        while self._queue:
            _, turn = self._queue.popleft()
            if not turn.done():  # as one is whose request was given up just now
                turn.set_result(None)
                return
        self._free += 1

    async def _wait(self) -> None:
        started = perf_counter()
        turn = asyncio.get_running_loop().create_future()
        place = (started, turn)
        self._queue.append(place)
        if self._timer is None:
            self._watch(self._wait_seconds)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):
                    self._queue.remove(place)
            elif turn.exception() is None:
                # Its turn came in the same moment.
                self.leave()
            raise
        self._observer.pool_waited(perf_counter() - started)

    def _watch(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(seconds, _TICK_SECONDS), self._expire)

    def _expire(self) -> None:
        """Send away whoever has waited for too long, and watch the next."""
        now = perf_counter()
        self._timer = None
        while self._queue:
            started, turn = self._queue[0]
            if (left := started + self._wait_seconds - now) > 0:
                self._watch(left)
                return
            self._queue.popleft()
            if not turn.done():
                self._observer.pool_timed_out()
                self._observer.request_shed("queue_timeout")
                turn.set_exception(PoolExhaustedError())

    async def _refuse(self) -> NoReturn:
        """Refuse at once, or one after the other where many are, but nobody later than a wait would have ended."""
        now = perf_counter()
        self._refused_last = min(max(now, self._refused_last + REFUSAL_SECONDS), now + self._wait_seconds)
        self._observer.request_shed("queue_full")
        await asyncio.sleep(self._refused_last - now)
        raise OverloadedError
