"""Slices of a client's quota: counted in advance by one worker, so that not every request uses the shared counters."""

import time
from collections import OrderedDict
from typing import Final, Protocol

from app.rate_limits.shared_remaining import Place, place_of
from app.rate_limits.window import Ahead, Decision, slice_seconds

MAX_SLICES: Final = 1024
"""Slices that a worker keeps: one for each client and quota. A new one past this ends the oldest."""

_SHARE: Final = 100
"""All workers together hold at most a hundredth of the limit."""

_FRESH_SECONDS: Final = 0.001
"""For how long a worker reuses what it has read of the shared counters: less than a response takes to arrive."""

_SMALLEST: Final = 2
"""Below this, slices cost more than they save."""


class Counters(Protocol):
    """Counters that several workers share."""

    def hit(
        self,
        key: bytes,
        limit: int,
        window: float,
        cost: int = 1,
        *,
        counted: int = 0,
        ahead: int | None = None,
        unspent: Ahead | None = None,
    ) -> Decision:
        """Count a request, or refuse it."""

    def remaining(self, place: Place) -> int | None:
        """What the counters had left after the last request that used them. None if it is not known."""

    def give_back(self, key: bytes, unspent: Ahead) -> None:
        """Remove requests that were counted ahead and not sent."""


class _Slice:
    """What a worker may admit for one client and quota without the shared counters."""

    __slots__ = ("ends_at", "fresh_until", "left", "place", "remaining", "reset_at", "size")

    def __init__(self, taken: Ahead, reset_at: float, place: Place) -> None:
        self.size = self.left = taken.requests
        self.ends_at = taken.ends_at
        self.reset_at = reset_at
        self.place = place
        self.remaining: int | None = None
        """What the counters had left, when they were last looked at."""
        self.fresh_until = 0.0

    @property
    def unspent(self) -> Ahead | None:
        """What is left, to be given back."""
        return Ahead(self.left, self.ends_at) if self.left else None


class Slices:
    """Admits a client's requests from a slice of its quota.

    A slice is counted when it is taken, so the workers together never admit more than the limit. It ends after a tenth
    of a second or less, and the next request that uses the counters gives back what is left. A client that sends slowly
    gets no slice. Each slice that is used up in time is followed by one of twice the size.
    """

    def __init__(self, counters: Counters, workers: int) -> None:
        """Nothing is taken yet.

        Args:
            counters: What the workers share.
            workers: How many there are.
        """
        self._counters = counters
        self._remaining = counters.remaining
        self._workers = workers
        self._slices = OrderedDict[bytes, _Slice]()

    def spend(self, key: bytes, cost: int = 1) -> tuple[int, float] | None:
        """Admit a request that was counted in advance. It counts as `cost` requests.

        Returns:
            What remains, and in how many seconds some of the client's quota is free again. None if the counters have
            to be asked.
        """
        held = self._slices.get(key)
        if held is None or held.left < cost:
            return None
        now = time.monotonic()
        if now >= held.ends_at:
            return None
        if now >= held.fresh_until:
            held.remaining = self._remaining(held.place)
            held.fresh_until = now + _FRESH_SECONDS
        if held.remaining is None:
            return None
        held.left -= cost
        return held.remaining + held.left, held.reset_at - now

    def hit(self, key: bytes, limit: int, window: float, cost: int = 1, *, counted: int = 0) -> Decision:
        """Count a request, or refuse it. The arguments are those of `SharedMemoryCounters.hit`."""
        if (spent := self.spend(key, cost - counted)) is not None:
            return Decision(True, *spent)
        largest = limit // (_SHARE * self._workers)
        if largest < _SMALLEST:
            return self._counters.hit(key, limit, window, cost, counted=counted)
        held, now = self._slices.get(key), time.monotonic()
        size, unspent = 0, None
        if held is not None:
            size = min(2 * held.size or 1, largest) if now < held.ends_at else 0
            unspent = held.unspent
            del self._slices[key]
        self._end_oldest(now)
        decision = self._counters.hit(key, limit, window, cost, counted=counted, ahead=size, unspent=unspent)
        if decision.admitted:
            taken = decision.ahead or Ahead(0, now + slice_seconds(window))
            self._slices[key] = _Slice(taken, now + decision.reset_seconds, place_of(key))
        return decision

    def _end_oldest(self, now: float) -> None:
        """End the oldest slice if its time is over, or if there are too many."""
        for key, oldest in self._slices.items():
            if now >= oldest.ends_at or len(self._slices) >= MAX_SLICES:
                self._end(key)
            return

    def _end(self, key: bytes) -> None:
        if unspent := self._slices.pop(key).unspent:
            self._counters.give_back(key, unspent)

    def clear(self) -> None:
        """Forget all slices: the counters that they were taken from are not used any more."""
        self._slices.clear()

    def give_back_all(self) -> None:
        """End all slices."""
        while self._slices:  # all are forgotten at once if the counters turn out to be damaged
            self._end(next(iter(self._slices)))
