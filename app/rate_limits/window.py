"""The sliding window: whether a client may send one more request, given the requests it has sent."""

import struct
from functools import cache
from typing import Final, NamedTuple

SLICES: Final = 10
"""Requests within a tenth of the window share one entry of the log."""

_CLOCK_TOLERANCE_SECONDS: Final = 1.0

_SLICE_SECONDS: Final = 0.1

_SHARE_OF_REMAINING: Final = 64
"""At most one part in this many of what remains is counted ahead, so that nothing is counted ahead near the limit."""

Log = tuple[float, ...]
"""The admitted requests of one client, oldest first: the window's length in seconds, the start time of the
newest entry, then time and count of each entry, at most SLICES + 2 entries.

An entry counts several requests and has the time of the last of them, so no request leaves the log
before a whole window has passed: no period of a window's length admits more than the limit.
In return, a request may count for up to a tenth of the window too long.
"""


class Ahead(NamedTuple):
    """Requests that were counted before they were sent."""

    requests: int
    ends_at: float
    """None of them may be sent at this time or later."""


class Decision(NamedTuple):
    """The decision about one request."""

    admitted: bool
    remaining: int
    """Requests that the client may still send now."""
    reset_seconds: float
    """Seconds until some of the client's quota is free again."""
    retry_seconds: float = 0.0
    """Seconds until the same request would be admitted, if the client sends nothing until then. 0 if it is admitted."""
    ahead: Ahead | None = None
    """Further requests that were counted with this one. `remaining` contains them."""


def count_request(log: Log, now: float, limit: int, cost: int = 1, counted: int = 0) -> tuple[Decision, Log]:
    """Admit a request if the window's limit allows it, and return the decision and the new log.

    Args:
        log: The client's requests until now.
        now: The time.
        limit: The requests that the window admits.
        cost: How many requests this one counts as, `limit` at most.
        counted: How many of them the log has already.
    """
    log = remove_expired(log, now)
    count = int(sum(log[3::2]))
    more = cost - counted
    admitted = count + more <= limit
    if admitted:
        count += more
        # The newest entry has a time in the future if requests were counted ahead: times never decrease.
        last = max(now, log[-2]) if len(log) > 2 else now
        if len(log) > 2 and now - log[1] < log[0] / SLICES:
            log = (*log[:-2], last, log[-1] + more)
        else:
            log = (log[0], now, *log[2:], last, more)
    oldest = log[2] if len(log) > 2 else now
    retry = 0.0 if admitted else _seconds_until(log, now, limit - cost)
    return Decision(admitted, max(0, limit - count), log[0] - (now - oldest), retry), log


def slice_seconds(window: float) -> float:
    """How long requests that were counted ahead may be sent."""
    return min(window / 100, _SLICE_SECONDS)


def count_ahead(decision: Decision, log: Log, now: float, count: int) -> tuple[Decision, Log]:
    """Count further requests with one that was just admitted: so many, or fewer if little remains.

    Their entry has the last time at which they may be sent, so they leave the log a whole window after that.
    """
    count = min(count, decision.remaining // _SHARE_OF_REMAINING)
    if not count:
        return decision, log
    ahead = Ahead(count, max(log[-2], now + slice_seconds(log[0])))
    log = (*log[:-2], ahead.ends_at, log[-1] + count)
    return Decision(True, decision.remaining, log[0] - (now - log[2]), 0.0, ahead), log


def give_back(log: Log, now: float, unspent: Ahead) -> Log:
    """The log without requests that were counted ahead and not sent."""
    if now - unspent.ends_at >= log[0]:  # Their entry may have left the log.
        return log
    for index in range(2, len(log), 2):
        if log[index] >= unspent.ends_at:
            return (*log[: index + 1], max(0.0, log[index + 1] - unspent.requests), *log[index + 2 :])
    return log


def _seconds_until(log: Log, now: float, count: int) -> float:
    """Seconds until the log has at most so many requests."""
    left = int(sum(log[3::2]))
    for at, requests in zip(log[2::2], log[3::2], strict=True):
        left -= int(requests)
        if left <= count:
            return log[0] - (now - at)
    return log[0]


def remove_expired(log: Log, now: float) -> Log:
    """The log without the entries that have left the window."""
    if is_expired(log, now):
        return (log[0], now)
    first = 2
    while now - log[first] >= log[0]:
        first += 2
    return log if first == 2 else (*log[:2], *log[first:])


def is_expired(log: Log, now: float) -> bool:
    """Whether all entries of the log have left the window."""
    if len(log) == 2:
        return True
    # Entries in the future were written before the clock was set back or the machine restarted.
    return not -_CLOCK_TOLERANCE_SECONDS <= now - log[-2] < log[0]


def remove_latest(log: Log, cost: int) -> Log:
    """The log without the request that was counted last. It may have counted as several."""
    while len(log) > 2 and log[-1] <= cost:
        log, cost = log[:-2], cost - int(log[-1])
    return (*log[:-1], log[-1] - cost) if len(log) > 2 else log


def pack(log: Log) -> bytes:
    """Write a log as bytes."""
    return _layout(len(log)).pack(*log)


def unpack(packed: bytes | memoryview) -> Log:
    """Read what `pack` wrote, at the beginning of the bytes."""
    return _layout(len(packed) // 8).unpack_from(packed)


@cache
def _layout(numbers: int) -> struct.Struct:
    return struct.Struct(f"<{numbers}d")
