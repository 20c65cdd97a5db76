"""Which request may use a connection, and which one waits or is refused: no client uses all of them."""

import asyncio
from collections import OrderedDict
from time import perf_counter
from typing import Final, NoReturn, Protocol

from app.database.lanes import Client, Lane, Waiter
from app.errors import OverloadedError, PoolExhaustedError, SlowRequestsBusyError

REFUSAL_SECONDS: Final = 0.005
"""The least time between two refusals. A client that retries at once would otherwise be refused so often
that the worker does little else: a refusal takes a third of the CPU time of an answer."""

_SLOW_SHARE: Final = 3
"""The slow lane has one of this many connections."""

_TICK_SECONDS: Final = 0.001
"""The event loop's clock is no finer, and a timer may run a moment early."""


class AdmissionObserver(Protocol):
    """Receives what happens to requests that find no free connection, for the metrics."""

    def pool_waited(self, seconds: float) -> None:
        """A request may use a connection after waiting this long."""

    def pool_timed_out(self) -> None:
        """A request got no connection within its time, and not for a slow statement."""

    def request_shed(self, reason: str) -> None:
        """A request was refused because there are too many."""


class Admission:
    """Lets up to `size` requests use a connection each, and others wait, all equally long at most.

    The last free connection is for a client that uses none, so that one client alone cannot use all of them; with a
    pool of one connection clients take turns. Slow statements have a part of the connections, so that others never
    wait for them, unless the pool has one connection only.

    Not a semaphore with `asyncio.timeout` around it: that sets up and takes down a timer for
    each request that waits, and under load each one waits. Here one timer serves all waiters.
    """

    def __init__(self, *, size: int, wait_seconds: float, observer: AdmissionObserver) -> None:
        self.free = size
        self.quick = Lane(size)
        self.slow = Lane(max(1, size // _SLOW_SHARE))
        self._turns = [self.quick, self.slow]
        """The lanes that take turns; the one whose turn is next comes first."""
        self._wait_seconds = wait_seconds
        self._observer = observer
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        """In the order of arrival, for the timer. None of them may use a connection that is free."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_refusal = float("-inf")

    async def enter(self, client: Client, lane: Lane, *, sheddable: bool) -> None:
        """Return when this client may use a connection. Each return is followed by one call of `leave`.

        Args:
            client: Who asks; None for the service itself.
            lane: The kind of its statement.
            sheddable: Whether it is refused at once when too many requests wait already.

        Raises:
            OverloadedError: Too many requests wait already.
            PoolExhaustedError: No connection came free in time.
            SlowRequestsBusyError: Either of these, for a slow statement.
        """
        if self._may_take(client, lane):
            self.free -= 1
            lane.take(client)
        else:
            await self._wait(client, lane, sheddable=sheddable)

    def leave(self, client: Client, lane: Lane) -> None:
        """Give the connection to the waiter whose turn it is, or make it free. The arguments are those of `enter`."""
        self.free += 1
        lane.give_back(client)
        while self._waiters and (waiter := self._next()):
            self._forget(waiter)
            if not waiter.slot.done():  # a cancelled waiter stays in the queue until its task runs
                self.free -= 1
                waiter.lane.take(waiter.client)
                waiter.slot.set_result(True)

    def _may_take(self, client: Client, lane: Lane) -> bool:
        """Whether this client may use one more connection now."""
        free_in_lane = lane.size - lane.in_use
        if not self.free or not free_in_lane:
            return False
        if client is None:
            return True
        held = lane.held_by(client)
        if free_in_lane == 1 and held:
            return False
        if lane is self.slow:
            # What a client does besides its slow statements never waits for them.
            held += self.quick.held_by(client)
        return self.free > 1 or not held

    def _next(self) -> Waiter | None:
        """The waiter whose turn it is, if there is a connection that it may use."""
        if self.free:
            for lane in self._turns:
                if lane.in_use < lane.size and (waiter := lane.next(self._may_take)):
                    if lane is self._turns[0]:
                        self._turns.reverse()
                    return waiter
        return None

    def _forget(self, waiter: Waiter) -> None:
        """Take a waiter out of the queue, if it is still there."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            waiter.lane.remove(waiter)

    async def _wait(self, client: Client, lane: Lane, *, sheddable: bool) -> None:
        if sheddable and not self._make_room(client, lane):
            await self._refuse(lane, perf_counter())
        slot: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiter = Waiter(client, lane, perf_counter(), slot)
        self._waiters[waiter] = None
        lane.add(waiter)
        if self._timer is None:
            self._start_timer(self._wait_seconds)
        try:
            admitted = await slot
        except asyncio.CancelledError:
            self._forget(waiter)
            if not slot.cancelled() and slot.exception() is None and slot.result():
                # The slot was given at the moment of the cancellation.
                self.leave(client, lane)
            raise
        if not admitted:
            await self._refuse(lane, waiter.started)
        self._observer.pool_waited(perf_counter() - waiter.started)

    def _make_room(self, client: Client, lane: Lane) -> bool:
        """Whether one more request of this client may wait. Another one may be refused instead."""
        if lane.is_full_for(client):
            return False
        if lane.is_full:
            refused = lane.to_refuse_for(client)
            if refused is None:
                return False
            self._forget(refused)
            if not refused.slot.done():
                refused.slot.set_result(False)
        return True

    def _start_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(seconds, _TICK_SECONDS), self._expire_waiters)

    def _expire_waiters(self) -> None:
        """End the waits that have lasted too long, and set the timer for the next waiter."""
        now = perf_counter()
        self._timer = None
        while self._waiters:
            waiter = next(iter(self._waiters))
            if (left := waiter.started + self._wait_seconds - now) > 0:
                self._start_timer(left)
                return
            self._forget(waiter)
            if not waiter.slot.done():
                self._time_out(waiter)

    def _time_out(self, waiter: Waiter) -> None:
        if waiter.lane is self.slow:
            self._observer.request_shed("slow_queue_timeout")
            waiter.slot.set_exception(SlowRequestsBusyError())
        else:
            self._observer.pool_timed_out()
            self._observer.request_shed("queue_timeout")
            waiter.slot.set_exception(PoolExhaustedError())

    async def _refuse(self, lane: Lane, started: float) -> NoReturn:
        """Refuse, at least REFUSAL_SECONDS after the refusal before, and no later than the wait would have ended."""
        now = perf_counter()
        self._last_refusal = min(max(now, self._last_refusal + REFUSAL_SECONDS), now + self._wait_seconds)
        is_slow = lane is self.slow
        self._observer.request_shed("slow_queue_full" if is_slow else "queue_full")
        await asyncio.sleep(min(self._last_refusal, started + self._wait_seconds) - now)
        raise SlowRequestsBusyError if is_slow else OverloadedError
