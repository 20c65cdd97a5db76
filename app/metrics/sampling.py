"""Metrics that are sampled once a second instead of with every request."""

import asyncio
import errno
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import structlog

from app.metrics.instruments import Metrics

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 1.0

LAG_SAMPLES: Final = 15
"""The reported lag is the highest of this many samples, so that a scrape every 15 seconds misses none."""

PROCESS_INTERVAL_SECONDS: Final = 15.0
"""How often memory and file descriptors are read. The system counts both by walking through them, so a thread reads."""

_MEMORY: Final = Path("/proc/self/smaps_rollup")
_DESCRIPTORS: Final = Path("/proc/self/fd")


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
    """The state of a database pool at one moment."""

    @property
    def size(self) -> int:
        """The most connections that may be open now."""

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
    metrics: Metrics,
    *,
    pool: Callable[[], PoolState],
    replica_pools: Callable[[], Mapping[str, PoolState]],
    lines_dropped: Callable[[], int],
    log_backlog_bytes: Callable[[], int],
) -> AsyncIterator[None]:
    """Sample every second until the context ends.

    Args:
        metrics: Receives the samples.
        pool: Returns the state of the primary's pool.
        replica_pools: Returns the states of the replicas' pools, by the number of the replica.
        lines_dropped: Returns how many log lines this process has dropped so far.
        log_backlog_bytes: Returns the bytes of log lines that wait to be written.
    """
    metrics.start_time.set(time.time())
    sampler = _Sampler(metrics, pool, replica_pools, lines_dropped, log_backlog_bytes)
    sampler.sample()
    tasks = [asyncio.create_task(sampler.run()), asyncio.create_task(_sample_process(metrics))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sampler.sample()


async def _sample_process(metrics: Metrics) -> None:
    while True:
        for read in (_read_descriptors, _read_memory):
            with suppress(OSError):  # Linux only, and some containers lack one of the files.
                await asyncio.to_thread(read, metrics)
        await asyncio.sleep(PROCESS_INTERVAL_SECONDS)


def _read_descriptors(metrics: Metrics) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    metrics.max_fds.set(most)
    try:
        metrics.open_fds.set(sum(1 for _ in _DESCRIPTORS.iterdir()))
    except OSError as error:
        if error.errno != errno.EMFILE:  # Counting needs a descriptor: there is none left.
            raise
        metrics.open_fds.set(most)


def _read_memory(metrics: Metrics) -> None:
    for line in _MEMORY.read_text().splitlines():
        if line.startswith("Pss:"):
            metrics.memory.set(int(line.split()[1]) * 1024)
            return


class _Sampler:
    def __init__(
        self,
        metrics: Metrics,
        pool: Callable[[], PoolState],
        replica_pools: Callable[[], Mapping[str, PoolState]],
        lines_dropped: Callable[[], int],
        log_backlog_bytes: Callable[[], int],
    ) -> None:
        self._metrics = metrics
        self._pool = pool
        self._replica_pools = replica_pools
        self._lines_dropped = lines_dropped
        self._log_backlog_bytes = log_backlog_bytes
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
        metrics.sample_statements()
        metrics.set_pool_state(_gauges(self._pool()))
        for replica, pool in self._replica_pools().items():
            metrics.set_pool_state(_gauges(pool), replica=replica)
        dropped, cpu_seconds = self._lines_dropped(), time.process_time()
        metrics.lines_dropped.inc(dropped - self._dropped)
        metrics.cpu.inc(cpu_seconds - self._cpu_seconds)
        self._dropped, self._cpu_seconds = dropped, cpu_seconds
        metrics.log_backlog.set(self._log_backlog_bytes())


def _gauges(pool: PoolState) -> dict[str, int]:
    """The values of `POOL_GAUGES`."""
    return {
        "size": pool.size,
        "open": pool.open,
        "in_use": pool.in_use,
        "waiting": pool.waiting,
        "slow_size": pool.slow.size,
        "slow_in_use": pool.slow.in_use,
        "slow_waiting": pool.slow.waiting,
    }
