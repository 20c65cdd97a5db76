"""Counters and histograms of prometheus_client, increased by the event loop at a fraction of the library's cost."""

from bisect import bisect_left
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from prometheus_client import Counter, Histogram
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.values import MutexValue

_pack: Final = Struct("d").pack
_BYTES: Final = 8


class FastCounter:
    """A counter that only the thread of the event loop increases.

    The library checks its arguments, takes a lock and looks whether the process has forked, each time. This writes the
    new value to the same place, so that nothing is lost when the process is killed.
    """

    __slots__ = ("_add",)

    def __init__(self, counter: Counter) -> None:
        self._add = _adder(counter._value)  # noqa: SLF001

    def increase(self) -> None:
        """Add 1."""
        self._add(1)


class FastHistogram:
    """A histogram that only the thread of the event loop adds to."""

    __slots__ = ("_add_to_buckets", "_add_to_sum", "_bounds")

    def __init__(self, histogram: Histogram) -> None:
        self._bounds = histogram._upper_bounds  # noqa: SLF001
        self._add_to_buckets = [_adder(bucket) for bucket in histogram._buckets]  # noqa: SLF001
        self._add_to_sum = _adder(histogram._sum)  # noqa: SLF001

    def observe(self, value: float) -> None:
        """Add a value."""
        self._add_to_sum(value)
        self._add_to_buckets[bisect_left(self._bounds, value)](1)


def _adder(value: Any) -> Callable[[float], None]:
    """Return what adds to a value of the library, in memory or in a mapped file."""

    def add(amount: float) -> None:
        value._value += amount  # noqa: SLF001

    def add_in_file(amount: float) -> None:
        value._value = total = value._value + amount  # noqa: SLF001
        file._m[start:end] = _pack(total)  # noqa: SLF001  # one assignment: a scrape never reads a part of it

    if isinstance(value, MutexValue):
        return add
    file: MmapedDict = value._file  # noqa: SLF001
    start = file._positions[value._key]  # noqa: SLF001
    end = start + _BYTES
    return add_in_file
