"""The sliding window: whether a client may send one more request, given the requests it has sent."""

import struct
from functools import cache
from typing import Final, NamedTuple

SLICES: Final = 10
"""Requests within a tenth of the window share one entry of the log."""

_CLOCK_TOLERANCE_SECONDS: Final = 1.0

Log = tuple[float, ...]
"""The admitted requests of one client, oldest first: the window's length in seconds, the start time of the
newest entry, then time and count of each entry, at most SLICES + 2 entries.

An entry counts several requests and has the time of the last of them, so no request leaves the log
before a whole window has passed: no period of a window's length admits more than the limit.
In return, a request may count for up to a tenth of the window too long.
"""


class Decision(NamedTuple):
    """The decision about one request."""

    admitted: bool
    remaining: int
    """Requests that the client may still send now."""
    reset_seconds: float
    """Seconds until some of the client's quota is free again."""


def count_request(log: Log, now: float, limit: int, cost: int = 1) -> tuple[Decision, Log]:
    """Admit a request if the window's limit allows it, and return the decision and the new log."""
    log = remove_expired(log, now)
    count = int(sum(log[3::2]))
    admitted = count + cost <= limit
    if admitted:
        count += cost
        if len(log) > 2 and now - log[1] < log[0] / SLICES:
            log = (*log[:-2], now, log[-1] + cost)
        else:
            log = (log[0], now, *log[2:], now, cost)
    oldest = log[2] if len(log) > 2 else now
    return Decision(admitted, max(0, limit - count), log[0] - (now - oldest)), log


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
    """The log without the request that was counted last."""
    return (*log[:-1], log[-1] - cost) if log[-1] > cost else log[:-2]


def pack(log: Log) -> bytes:
    """Write a log as bytes."""
    return _layout(len(log)).pack(*log)


def unpack(packed: bytes | memoryview) -> Log:
    """Read what `pack` wrote, at the beginning of the bytes."""
    return _layout(len(packed) // 8).unpack_from(packed)


@cache
def _layout(numbers: int) -> struct.Struct:
    return struct.Struct(f"<{numbers}d")
