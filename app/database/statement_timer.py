"""Ends statements that run past their time: one timer serves all, instead of one that is set up for each."""

import asyncio
from time import perf_counter
from types import TracebackType
from typing import Any, Final

_TICK_SECONDS: Final = 0.001
"""The event loop's clock is no finer, and a timer may run a moment early."""


class StatementTimer:
    """Bounds what runs in a `with` block, as `asyncio.timeout` does. All blocks of one timer have the same time."""

    def __init__(self, seconds: float) -> None:
        """Serve blocks in the event loop that runs now."""
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()  # each call of it is a system call in CPython 3.11
        self._running: dict[asyncio.Task[Any] | None, tuple[float, int]] = {}
        """When the block of each task began, by `perf_counter`, and how often the task had been cancelled by then.
        In the order of their beginning, so the first one is overdue first."""
        self._overdue: dict[asyncio.Task[Any] | None, int] = {}
        """The tasks that were cancelled because of their time, and how often each had been cancelled before."""
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        """Begin a block of the current task, which has no other one of this timer."""
        task = asyncio.current_task(self._loop)
        self._running[task] = perf_counter(), task.cancelling() if task else 0
        if self._timer is None:
            self._start(self.seconds)

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End it.

        Raises:
            TimeoutError: It was cancelled because of its time, and not for another reason as well.
        """
        task = asyncio.current_task(self._loop)
        if self._running.pop(task, None) is None and task is not None:
            cancelled_before = self._overdue.pop(task)
            if task.uncancel() <= cancelled_before and kind is asyncio.CancelledError:
                raise TimeoutError from None  # the CancelledError would add nothing to a log

    def _start(self, seconds: float) -> None:
        self._timer = self._loop.call_later(max(seconds, _TICK_SECONDS), self._end_overdue)

    def _end_overdue(self) -> None:
        """Cancel the tasks whose time is over, and set the timer for the next one."""
        now = perf_counter()
        self._timer = None
        while self._running:
            task, (began, cancelled_before) = next(iter(self._running.items()))
            if (left := began + self.seconds - now) > 0:
                self._start(left)
                return
            del self._running[task]
            self._overdue[task] = cancelled_before
            if task is not None:
                task.cancel()
