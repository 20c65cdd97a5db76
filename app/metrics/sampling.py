"""Metrics that are sampled once a second instead of with every request."""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import structlog

from app.metrics.instruments import Metrics

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 1.0

LAG_SAMPLES: Final = 15
"""The reported lag is the highest of this many samples, so that a scrape every 15 seconds misses none."""

_MEMORY: Final = Path("/proc/self/statm")


class LaneState(Protocol):
    """One kind of statements in the database pool at one moment."""

    @property
    def size(self) -> int:
        """The most connections that they may use."""

    @property
    def in_use(self) -> int:
        """Connections on which one of them runs."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection for one of them."""


class PoolState(Protocol):
    """The state of the database pool at one moment."""

    @property
    def size(self) -> int:
        """The greatest number of open connections."""

    @property
    def open(self) -> int:
        """Open connections."""

    @property
    def in_use(self) -> int:
        """Connections on which a statement runs."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""

    @property
    def slow(self) -> LaneState:
        """The part of slow statements in these numbers."""


@asynccontextmanager
async def sampling(
    metrics: Metrics, *, pool: Callable[[], PoolState], lines_dropped: Callable[[], int]
) -> AsyncIterator[None]:
    """Sample every second until the context ends.

    Args:
        metrics: Receives the samples.
        pool: Returns the pool's state.
        lines_dropped: Returns how many log lines this process has dropped so far.
    """
    metrics.start_time.set(time.time())
    sampler = _Sampler(metrics, pool, lines_dropped)
    sampler.sample()
    task = asyncio.create_task(sampler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        sampler.sample()


class _Sampler:
    def __init__(self, metrics: Metrics, pool: Callable[[], PoolState], lines_dropped: Callable[[], int]) -> None:
        self._metrics = metrics
        self._pool = pool
        self._lines_dropped = lines_dropped
        self._dropped = 0
        self._cpu_seconds = 0.0
        self._lags: deque[float] = deque(maxlen=LAG_SAMPLES)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            self._lags.append(max(0.0, loop.time() - due))
            self._metrics.loop_lag.set(max(self._lags))
            try:
                self.sample()
            except Exception:
                log.exception("sample_failed")

    def sample(self) -> None:
        metrics = self._metrics
        metrics.sample_in_progress()
        pool = self._pool()
        metrics.set_pool_state(size=pool.size, open=pool.open, in_use=pool.in_use, waiting=pool.waiting)
        slow = pool.slow
        metrics.set_slow_pool_state(size=slow.size, in_use=slow.in_use, waiting=slow.waiting)
        dropped, cpu_seconds = self._lines_dropped(), time.process_time()
        metrics.lines_dropped.inc(dropped - self._dropped)
        metrics.cpu.inc(cpu_seconds - self._cpu_seconds)
        self._dropped, self._cpu_seconds = dropped, cpu_seconds
        try:
            metrics.memory.set(int(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        except OSError:  # The file exists on Linux only.
            return
