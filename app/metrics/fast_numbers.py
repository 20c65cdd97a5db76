"""Counters and histograms of prometheus_client, increased by the event loop at a fraction of the library's cost."""

# ruff: noqa: SLF001  # the values are inside of the library's counters and histograms
from bisect import bisect_left
from typing import Any, Final

from prometheus_client import Counter, Histogram
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.values import MutexValue

_BYTES: Final = 8


class FastCounter:
    """A counter that only the thread of the event loop increases.

    The library checks its arguments, takes a lock and looks whether the process has forked, each time. This writes the
    new value to the same place, so that nothing is lost when the process is killed.
    """

    __slots__ = ("_number", "_value")

    def __init__(self, counter: Counter) -> None:
        self._value, self._number = _places(counter._value)

    def increase(self) -> None:
        """Add 1."""
        value = self._value
        value._value = self._number[0] = value._value + 1


class FastHistogram:
    """A histogram that only the thread of the event loop adds to."""

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._bounds = histogram._upper_bounds
        self._buckets = [_places(bucket) for bucket in histogram._buckets]
        self._sum = _places(histogram._sum)

    def observe(self, seconds: float) -> None:
        """Add a value."""
        value, number = self._sum
        value._value = number[0] = value._value + seconds
        value, number = self._buckets[bisect_left(self._bounds, seconds)]
        value._value = number[0] = value._value + 1


def _places(value: Any) -> tuple[Any, "memoryview[float]"]:
    """Return both places of a number: the value of the library, and its 8 bytes in the mapped file.

    The processor writes them at once, so a scrape never reads a part of them. They stay the same when the file grows,
    although the library maps it again. A value that is in memory only gets 8 bytes that nobody reads.
    """
    if isinstance(value, MutexValue):
        return value, memoryview(bytearray(_BYTES)).cast("d")
    file: MmapedDict = value._file
    start = file._positions[value._key]
    return value, memoryview(file._m)[start : start + _BYTES].cast("d")
