"""Which request may use a connection, and which one waits or is refused: no client uses all of them."""

import asyncio
from collections import OrderedDict
from time import perf_counter
from typing import Final, NoReturn, Protocol

from app.database.lanes import Client, Lane, Waiter
from app.errors import DatabaseUnavailableError, OverloadedError, PoolExhaustedError, SlowRequestsBusyError

REFUSAL_SECONDS: Final = 0.005
"""The least time between two refusals. A client that retries at once would otherwise be refused so often
that the worker does little else: a refusal takes a third of the CPU time of an answer."""

_SLOW_SHARE: Final = 3
"""The slow lane has one of this many connections."""

_SEVERAL_CLIENTS_SECONDS: Final = 60.0
"""A client counts as one of several if another one has sent a request within this time. If it is the only one, its
failures are all that users see of the service, and it may be a proxy that hides them all."""

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
    """Lets up to `size` requests use a connection each, and others wait, all equally long at most. The size may change.

    The last free connection is for a client that uses none, so that one client alone cannot use all of them; with a
    pool of one connection clients take turns. Slow statements have a part of the connections, so that others never
    wait for them, unless the pool has one connection only.

    Not a semaphore with `asyncio.timeout` around it: that sets up and takes down a timer for
    each request that waits, and under load each one waits. Here one timer serves all waiters.
    """

    def __init__(self, *, size: int, wait_seconds: float, observer: AdmissionObserver) -> None:
        self._loop = asyncio.get_running_loop()  # each call of it is a system call in CPython 3.11
        self.size = size
        self.free = size
        """Less than 0 while more connections are in use than the size was reduced to."""
        self.quick = Lane(size)
        self.slow = Lane(_slow_size(size))
        self._turns = [self.quick, self.slow]
        """The lanes that take turns; the one whose turn is next comes first."""
        self._wait_seconds = wait_seconds
        self._observer = observer
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        """In the order of arrival, for the timer. None of them may use a connection that is free."""
        self._check: asyncio.Future[None] | None = None
        """The check of the database, while it waits for a connection."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_refusal = float("-inf")
        self._last_client: Client = None
        self._client_changed_at = float("-inf")

    def enter_now(self, client: Client, lane: Lane) -> bool:
        """Let this client use a connection if it may now; otherwise it has to `wait`.

        Each use of a connection is followed by one call of `leave`.

        Args:
            client: Who asks; None for the service itself.
            lane: The kind of its statement.
        """
        if client is not None and client != self._last_client:
            if self._last_client is not None:
                self._client_changed_at = perf_counter()
            self._last_client = client
        if not self._may_take(client, lane):
            return False
        self.free -= 1
        lane.take(client)
        return True

    async def wait(self, client: Client, lane: Lane) -> None:
        """Return when this client may use a connection. The arguments are those of `enter_now`.

        Raises:
            OverloadedError: Too many requests wait already.
            PoolExhaustedError: No connection came free in time.
            SlowRequestsBusyError: Either of these, for a slow statement.
        """
        if not self._make_room(client, lane):
            await self._refuse(lane, perf_counter(), by_own_share=self._crowds_others(client, lane))
        slot: asyncio.Future[bool] = self._loop.create_future()
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
            await self._refuse(lane, waiter.started, by_own_share=waiter.by_own_share)
        self._observer.pool_waited(perf_counter() - waiter.started)

    async def enter_first(self) -> None:
        """Return when the check of the database may use a connection: before every waiter, however long that takes.

        It is a quick statement of the service itself. One check can wait at a time.
        """
        if self.free > 0:
            self.free -= 1
            self.quick.take(None)
            return
        self._check = self._loop.create_future()
        try:
            await self._check
        except asyncio.CancelledError:
            if self._check.done() and not self._check.cancelled() and self._check.exception() is None:
                # It was admitted at the moment of the cancellation.
                self.leave(None, self.quick)
            raise
        finally:
            self._check = None

    def leave(self, client: Client, lane: Lane) -> None:
        """Give the connection to the waiter whose turn it is, or make it free."""
        self.free += 1
        lane.give_back(client)
        if self._waiters or self._check is not None:
            self._admit()

    def resize(self, size: int) -> None:
        """Let this many requests use a connection from now on. Those that use one already go on."""
        self.free += size - self.size
        self.size = self.quick.size = size
        self.slow.size = _slow_size(size)
        self._admit()

    def _admit(self) -> None:
        """Admit the waiters whose turn it is, as far as connections are free."""
        if self.free > 0 and self._check is not None and not self._check.done():
            self.free -= 1
            self.quick.take(None)
            self._check.set_result(None)
        while self._waiters and (waiter := self._next()):
            self._forget(waiter)
            if not waiter.slot.done():  # a cancelled waiter stays in the queue until its task runs
                self.free -= 1
                waiter.lane.take(waiter.client)
                waiter.slot.set_result(True)

    def fail_waiters(self) -> None:
        """End each wait with a DatabaseUnavailableError."""
        for waiter in tuple(self._waiters):
            self._forget(waiter)
            if not waiter.slot.done():
                waiter.slot.set_exception(DatabaseUnavailableError())

    def fail_check(self) -> None:
        """End the wait of the check of the database with a DatabaseUnavailableError."""
        if self._check is not None and not self._check.done():
            self._check.set_exception(DatabaseUnavailableError())

    def _may_take(self, client: Client, lane: Lane) -> bool:
        """Whether this client may use one more connection now."""
        free_in_lane = lane.size - lane.in_use
        if self.free <= 0 or free_in_lane <= 0:
            return False
        if client is None or (self.free > 1 and free_in_lane > 1):
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
        if self.free > 0:
            for lane in self._turns:
                if lane.waiting and lane.in_use < lane.size and (waiter := lane.next(self._may_take)):
                    if lane is self._turns[0]:
                        self._turns.reverse()
                    return waiter
        return None

    def _forget(self, waiter: Waiter) -> None:
        """Take a waiter out of the queue, if it is still there."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            waiter.lane.remove(waiter)

    def _make_room(self, client: Client, lane: Lane) -> bool:
        """Whether one more request of this client may wait. Another one may be refused instead."""
        if lane.is_full_for(client):
            return False
        if lane.is_full:
            refused = lane.to_refuse_for(client)
            if refused is None:
                return False
            refused.by_own_share = self._crowds_others(refused.client, lane)
            self._forget(refused)
            if not refused.slot.done():
                refused.slot.set_result(False)
        return True

    def _crowds_others(self, client: Client, lane: Lane) -> bool:
        """Whether this client has more than half of the waiting requests, and is one of several clients."""
        is_one_of_several = perf_counter() - self._client_changed_at < _SEVERAL_CLIENTS_SECONDS
        return is_one_of_several and lane.is_crowded_by(client)

    def _waits_for_itself(self, waiter: Waiter) -> bool:
        """Whether a waiter has no connection because of what else its client sends.

        That its client has most of the waiters is not enough if few are left: those may be of any client.
        """
        client, lane = waiter.client, waiter.lane
        is_kept_for_others = self.free > 0 and lane.in_use < lane.size
        is_many = lane.waiting_of(client) > lane.size
        return self._crowds_others(client, lane) and (is_many or is_kept_for_others or lane.is_mostly_used_by(client))

    def _start_timer(self, seconds: float) -> None:
        self._timer = self._loop.call_later(max(seconds, _TICK_SECONDS), self._expire_waiters)

    def _expire_waiters(self) -> None:
        """End the waits that have lasted too long, and set the timer for the next waiter."""
        now = perf_counter()
        self._timer = None
        while self._waiters:
            waiter = next(iter(self._waiters))
            if (left := waiter.started + self._wait_seconds - now) > 0:
                self._start_timer(left)
                return
            by_own_share = self._waits_for_itself(waiter)
            self._forget(waiter)
            if not waiter.slot.done():
                self._time_out(waiter, by_own_share=by_own_share)

    def _time_out(self, waiter: Waiter, *, by_own_share: bool) -> None:
        self._report_shed(waiter.lane, "queue_timeout", by_own_share=by_own_share)
        if waiter.lane is self.slow:
            waiter.slot.set_exception(SlowRequestsBusyError(by_own_share=by_own_share))
        else:
            self._observer.pool_timed_out()
            waiter.slot.set_exception(PoolExhaustedError(by_own_share=by_own_share))

    def _report_shed(self, lane: Lane, reason: str, *, by_own_share: bool) -> None:
        reason = "client_share" if by_own_share else reason
        self._observer.request_shed(f"slow_{reason}" if lane is self.slow else reason)

    async def _refuse(self, lane: Lane, started: float, *, by_own_share: bool) -> NoReturn:
        """Refuse, at least REFUSAL_SECONDS after the refusal before, and no later than the wait would have ended."""
        now = perf_counter()
        self._last_refusal = min(max(now, self._last_refusal + REFUSAL_SECONDS), now + self._wait_seconds)
        self._report_shed(lane, "queue_full", by_own_share=by_own_share)
        await asyncio.sleep(min(self._last_refusal, started + self._wait_seconds) - now)
        raise (SlowRequestsBusyError if lane is self.slow else OverloadedError)(by_own_share=by_own_share)


def _slow_size(size: int) -> int:
    return max(1, size // _SLOW_SHARE)
