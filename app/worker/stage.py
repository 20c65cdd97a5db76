"""The stage of each worker, in memory that the master and its workers share."""

import mmap
from enum import IntEnum


class Stage(IntEnum):
    """What a worker is doing."""

    STARTING = 1
    """It imports the application and opens its parts."""

    SERVING = 2
    """It accepts connections."""

    RECYCLING = 3
    """It accepts connections. It has answered MAX_REQUESTS requests and asks to be replaced."""

    DRAINING = 4
    """It accepts no more connections and finishes the requests it has."""


class StageTable:
    """One byte for each slot. The master makes the table before it forks a worker, so all of them see the same memory.

    A byte is written by one worker, the one that has the slot. A write of one
    byte cannot be seen half done, so no lock is needed.
    """

    def __init__(self) -> None:
        # A page is the smallest mapping, and holds more slots than WEB_CONCURRENCY allows workers.
        self._stages = mmap.mmap(-1, mmap.PAGESIZE)

    def write_stage(self, slot: int, stage: Stage) -> None:
        """Set the stage of the worker in this slot."""
        self._stages[slot] = stage

    def read_stage(self, slot: int) -> Stage:
        """The stage of the worker in this slot. It stays readable after the worker has ended."""
        return Stage(self._stages[slot])
