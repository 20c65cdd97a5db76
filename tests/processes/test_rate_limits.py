import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.rate_limits import RateLimits, redis_counters
from app.rate_limits.shared_memory_counters import SharedMemoryCounters
from app.settings import Settings
from tests.redis_server import redis_server

processes = get_context("spawn")


@contextmanager
def running(target: Callable[..., None], *arguments: Any, count: int = 1) -> Iterator[list[SpawnProcess]]:
    """Real processes that run a function, and are killed when the block ends."""
    started = [processes.Process(target=target, args=arguments, daemon=True) for _ in range(count)]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def open_counters(folder: Path) -> SharedMemoryCounters:
    """Open the counters of a host."""
    counters = SharedMemoryCounters()
    counters.open(folder)
    return counters


def send_burst(folder: Path, barrier: Any, admitted: Any) -> None:
    """Send a hundred requests at the same time as other processes, and report how many were admitted."""
    counters = open_counters(folder)
    barrier.wait()
    decisions = [counters.hit(b"client", 100, 60) for _ in range(100)]
    admitted.put(sum(decision.admitted for decision in decisions if decision is not None))
    counters.close()


def test_workers_share_a_limit_exactly(tmp_path):
    """Four processes with a hundred requests each, at the same time, together admit a hundred."""
    barrier, admitted = processes.Barrier(4), processes.Queue()
    with running(send_burst, tmp_path, barrier, admitted, count=4):
        assert 100 == sum(admitted.get(timeout=30) for _ in range(4))


def send_until_killed(folder: Path, reported: Any) -> None:
    """Count requests, and report each one that was counted."""
    counters = open_counters(folder)
    number = 0
    while True:
        number += 1
        assert counters.hit(b"together", 10**9, 3600) is not None
        reported.value += 1
        counters.hit(b"%d %d" % (os.getpid(), number % 500), 5, 1)


def test_a_killed_worker_loses_no_counted_request(tmp_path):
    """Processes are killed at any moment while they count. No count is lost, and no other process waits.

    Each process may have counted one request that it did not report.
    """
    counters = open_counters(tmp_path)
    reported = [processes.Value("q", 0, lock=False) for _ in range(8)]
    for pair in zip(reported[::2], reported[1::2], strict=True):
        with running(send_until_killed, tmp_path, pair[0]) as (victim,), running(send_until_killed, tmp_path, pair[1]):
            while not all(value.value for value in pair):
                time.sleep(0.001)
            victim.kill()
            assert counters.hit(b"survivor", 10**9, 3600) is not None

    total = sum(value.value for value in reported)
    counted = counters.read(b"together")
    assert counted is not None
    assert total <= counted[1] <= total + 8
    survived = counters.read(b"survivor")
    assert survived is not None
    assert 4 == survived[1]
    counters.close()


def hold_the_lock(folder: Path, ready: Any) -> None:
    """Hold the lock by staying in a transaction."""
    counters = open_counters(folder)
    with counters._transaction() as transaction:
        assert transaction is not None
        transaction.put(b"half", b"written")
        ready.set()
        time.sleep(60)


def test_a_worker_killed_while_counting_releases_its_lock(tmp_path):
    """What it had not committed is not stored."""
    counters, ready = open_counters(tmp_path), processes.Event()
    with running(hold_the_lock, tmp_path, ready) as (holder,):
        assert ready.wait(30)
        holder.kill()
        holder.join()
        decisions = [counters.hit(b"client", 5, 60) for _ in range(10)]

    assert [True] * 5 + [False] * 5 == [decision is not None and decision.admitted for decision in decisions]
    assert counters.read(b"half") is None
    counters.close()


def test_a_worker_that_hangs_while_counting_blocks_nobody(tmp_path):
    """One request of each other worker waits 50 ms. Later ones are not counted until the worker is replaced."""
    counters, ready = open_counters(tmp_path), processes.Event()
    with running(hold_the_lock, tmp_path, ready) as (holder,):
        assert ready.wait(30)
        assert holder.pid
        os.kill(holder.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert [None] * 1000 == [counters.hit(b"client", 5, 60) for _ in range(1000)]
        assert time.monotonic() - began < 0.5

    decisions = [counters.hit(b"client", 5, 60) for _ in range(10)]
    assert [True] * 5 + [False] * 5 == [decision is not None and decision.admitted for decision in decisions]
    counters.close()


class States:
    """Records when a worker's storage became degraded."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Ignore it."""

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Record it."""
        self.seen.append(degraded)


async def work(folder: Path, uri: str, commands: Any, answers: Any) -> None:
    """Act as a worker: send the commanded number of requests, and report what was admitted, seen and logged."""
    states = States()
    settings = Settings.load(_env_file=None, rate_limit_storage_uri=uri, rate_limit_read="100/minute")
    limits = RateLimits(settings, states)
    with capture_logs() as lines:
        async with limits.opened(folder):
            while (command := await asyncio.to_thread(commands.get)) is not None:
                hits = [limits.hit(limits.quota("GET"), "192.0.2.1") for _ in range(command)]
                decisions = await asyncio.gather(*hits)
                admitted = sum(decision.admitted for decision in decisions)
                answers.put((folder.name, admitted, states.seen, [line["event"] for line in lines]))


def run_worker(folder: Path, uri: str, commands: Any, answers: Any) -> None:
    """Run `work` in a process of its own."""
    redis_counters._PROBE_SECONDS = 0.05  # type: ignore[misc]
    asyncio.run(work(folder, uri, commands, answers))


class Hosts:
    """Two hosts with two workers each."""

    def __init__(self, folder: Path, uri: str, stack: ExitStack) -> None:
        self.admitted = {"host0": 0, "host1": 0}
        self._answers = processes.Queue()
        self._commands = [processes.Queue() for _ in range(4)]
        for number, commands in enumerate(self._commands):
            stack.enter_context(running(run_worker, folder / f"host{number % 2}", uri, commands, self._answers))

    def send(self, count: int) -> list[tuple[list[bool], list[str]]]:
        """Send requests to each worker, and return what each has seen and logged so far."""
        for commands in self._commands:
            commands.put(count)
        answers = [self._answers.get(timeout=30) for _ in self._commands]
        for host, admitted, *_ in answers:
            self.admitted[host] += admitted
        return [(states, events) for *_, states, events in answers]

    def send_until(self, states: list[bool]) -> list[str]:
        """Send until every worker has seen these states, and return what was logged by then."""
        for _ in range(200):
            answers = self.send(1)
            if all(states == seen for seen, _ in answers):
                return sorted(event for _, events in answers for event in events)
            time.sleep(0.02)
        raise AssertionError(answers)


@pytest.mark.needs("redis-server")
def test_hosts_share_a_limit_and_each_logs_a_lost_redis_once(tmp_path):
    """Two hosts with two workers each admit the limit together. While Redis is frozen, each host applies it.

    Every worker detects that Redis is lost and restored, and one worker of each host logs it.
    """
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as redis, ExitStack() as stack:
        hosts = Hosts(tmp_path, redis.uri, stack)
        hosts.send(100)
        assert 100 == sum(hosts.admitted.values())

        redis.freeze()
        assert ["rate_limit_storage_lost"] * 2 == hosts.send_until([False, True])
        hosts.send(100)
        assert {"host0": 100, "host1": 100} == hosts.admitted

        redis.thaw()
        events = hosts.send_until([False, True, False])
        assert ["rate_limit_storage_lost"] * 2 + ["rate_limit_storage_restored"] * 2 == events
        assert {"host0": 100, "host1": 100} == hosts.admitted
