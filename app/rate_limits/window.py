"""The sliding window: how many requests a client may still send, by what it has sent."""

import struct
from functools import cache
from typing import Final, NamedTuple

SLICES: Final = 10
"""Requests within a tenth of the window share one entry of the log."""

_CLOCK_TOLERANCE_SECONDS: Final = 1.0

Log = tuple[float, ...]
"""What a client was granted, oldest first: the window's length in seconds, when the newest entry
was begun, then date and count of each entry in turn, SLICES + 2 entries at most.

An entry stands for several requests and is dated by the last of them, so none is forgotten
before a whole window has passed: no span of a window's length ever admits more than the limit.
The price is that a request may count for up to a tenth of the window too long.
"""


class Decision(NamedTuple):
    """What became of one request."""

    admitted: bool
    remaining: int
    """Requests that the client may send right now."""
    reset_seconds: float
    """How long until the client gets some of its quota back."""


def spend(log: Log, now: float, limit: int, cost: int = 1) -> tuple[Decision, Log]:
    """Admit a request if the window has room for it, and tell what the log is afterwards."""
    log = current(log, now)
    spent = int(sum(log[3::2]))
    admitted = spent + cost <= limit
    if admitted:
        spent += cost
        if len(log) > 2 and now - log[1] < log[0] / SLICES:
            log = (*log[:-2], now, log[-1] + cost)
        else:
            log = (log[0], now, *log[2:], now, cost)
    oldest = log[2] if len(log) > 2 else now
    return Decision(admitted, max(0, limit - spent), log[0] - (now - oldest)), log


def current(log: Log, now: float) -> Log:
    """The log without the entries that have left the window."""
    if expired(log, now):
        return (log[0], now)
    first = 2
    while now - log[first] >= log[0]:
        first += 2
    return log if first == 2 else (*log[:2], *log[first:])


def expired(log: Log, now: float) -> bool:
    """Whether nothing in the log counts any more."""
    if len(log) == 2:
        return True
    # Entries from the future were written before the clock was set back, or the machine restarted.
    return not -_CLOCK_TOLERANCE_SECONDS <= now - log[-2] < log[0]


def take_back(log: Log, cost: int) -> Log:
    """The log without the requests that were granted last."""
    return (*log[:-1], log[-1] - cost) if log[-1] > cost else log[:-2]


def pack(log: Log) -> bytes:
    """Write a log as bytes."""
    return _layout(len(log)).pack(*log)


def unpack(packed: bytes | memoryview) -> Log:
    """Read what `pack` wrote."""
    return _layout(len(packed) // 8).unpack(packed)


@cache
def _layout(numbers: int) -> struct.Struct:
    return struct.Struct(f"<{numbers}d")
