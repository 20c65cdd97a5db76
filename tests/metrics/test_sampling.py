import asyncio
import errno
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.metrics import sampling as module
from app.metrics.exposition import Exposition
from app.metrics.instruments import Metrics
from app.metrics.sampling import sampling
from tests.metrics.conftest import series

pytestmark = pytest.mark.anyio

SLOW = SimpleNamespace(size=2, in_use=1, waiting=3)


async def test_samples_show_the_current_state(monkeypatch: pytest.MonkeyPatch):
    """Pool, process and dropped lines are sampled at the start, at every interval and at the end."""
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.05)
    metrics = Metrics()
    pool = SimpleNamespace(size=5, open=2, in_use=1, waiting=0, slow=SLOW)
    of_replica = SimpleNamespace(size=6, open=3, in_use=2, waiting=8, slow=SLOW)
    dropped = [3]

    async with sampling(
        metrics,
        pool=lambda: pool,
        replica_pools=lambda: {"2": of_replica},
        lines_dropped=lambda: dropped[0],
        log_backlog_bytes=lambda: 77,
    ):
        for _ in range(3000):
            if scrape(metrics)['worker_proportional_memory_bytes{worker="0"}']:
                break
            await asyncio.sleep(0.01)
        first = scrape(metrics)
        pool.in_use, pool.waiting, dropped[0] = 5, 7, 4
        of_replica.in_use = 3
        await asyncio.sleep(0.12)
        second = scrape(metrics)
        pool.open = 0
    last = scrape(metrics)

    assert [1, 0, 3] == [first[n] for n in ("database_pool_in_use", "database_pool_waiting", "log_lines_dropped_total")]
    assert [5, 7, 4] == [
        second[n] for n in ("database_pool_in_use", "database_pool_waiting", "log_lines_dropped_total")
    ]
    assert [2, 1, 3] == [first[f"database_pool_slow_{name}"] for name in ("size", "in_use", "waiting")]
    names = ("size", "open", "in_use", "waiting", "slow_size", "slow_in_use", "slow_waiting")
    assert [6, 3, 2, 8, 2, 1, 3] == [first[f'database_replica_pool_{name}{{replica="2"}}'] for name in names]
    assert 3 == second['database_replica_pool_in_use{replica="2"}']
    assert 0 == last["database_pool_open"]
    assert 0 < second['worker_cpu_seconds_total{worker="0"}']
    assert 1 << 20 < second['worker_proportional_memory_bytes{worker="0"}'] < 1 << 32
    assert 3 <= second['worker_open_fds{worker="0"}'] < second['worker_max_fds{worker="0"}']
    assert 77 == second['worker_log_backlog_bytes{worker="0"}']
    assert abs(time.time() - second['worker_start_time_seconds{worker="0"}']) < 60


async def test_a_blocked_event_loop_is_measured(monkeypatch: pytest.MonkeyPatch):
    """The lag is the delay of a timer."""
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.01)
    metrics = Metrics()
    async with sampling(
        metrics,
        pool=lambda: SimpleNamespace(size=0, open=0, in_use=0, waiting=0, slow=SLOW),
        replica_pools=dict,
        lines_dropped=lambda: 0,
        log_backlog_bytes=lambda: 0,
    ):
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251
        for _ in range(5):
            await asyncio.sleep(0)

        assert 0.15 < scrape(metrics)['worker_loop_lag_seconds{worker="0"}'] < 5


async def test_sampling_continues_after_a_failed_sample(monkeypatch: pytest.MonkeyPatch):
    """An exception in one sample does not stop the following ones."""
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.01)
    metrics = Metrics()
    pool = SimpleNamespace(size=5, open=2, in_use=1, waiting=0, slow=SLOW)
    async with sampling(
        metrics, pool=lambda: pool, replica_pools=dict, lines_dropped=lambda: 0, log_backlog_bytes=lambda: 0
    ):
        del pool.waiting
        await asyncio.sleep(0.05)
        pool.waiting = 9
        await asyncio.sleep(0.05)

        assert 9 == scrape(metrics)["database_pool_waiting"]


def scrape(metrics: Metrics) -> dict[str, float]:
    """The series that Prometheus would read."""
    return series(Exposition(metrics).render().decode())


async def test_exhausted_descriptors_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Counting needs a descriptor. Without one, all are in use; the memory is read all the same, and again later."""
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOENT, "No such file")]

    class Descriptors:
        """Fails twice."""

        def iterdir(self) -> list[str]:
            if failures:
                raise failures.pop(0)
            return ["0", "1", "2"]

    memory = tmp_path / "smaps_rollup"
    memory.write_text("Rss: 9 kB\nPss: 2 kB\n")
    monkeypatch.setattr(module, "_DESCRIPTORS", Descriptors())
    monkeypatch.setattr(module, "_MEMORY", memory)
    monkeypatch.setattr(module, "PROCESS_INTERVAL_SECONDS", 0)
    metrics = Metrics()
    seen: list[float] = []
    monkeypatch.setattr(metrics.open_fds, "set", seen.append)

    task = asyncio.create_task(module._sample_process(metrics))
    for _ in range(3000):
        if 3 in seen:
            break
        await asyncio.sleep(0.01)
    task.cancel()

    assert [resource.getrlimit(resource.RLIMIT_NOFILE)[0], 3] == seen[:2]
    assert 2048 == scrape(metrics)['worker_proportional_memory_bytes{worker="0"}']
