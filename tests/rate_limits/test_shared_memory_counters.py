import fcntl
import os
import stat
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from app.rate_limits import shared_memory_counters
from app.rate_limits.shared_memory_counters import MAX_KEYS, SharedMemoryCounters
from app.rate_limits.window import SLICES, pack


@pytest.fixture
def counters(tmp_path):
    """Open counters in an empty folder."""
    opened = SharedMemoryCounters()
    opened.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, set by the test: a list with one value in seconds."""
    now = [1000.0]

    class Time:
        sleep = staticmethod(time.sleep)
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(shared_memory_counters, "time", Time)
    return now


def entries(counters: SharedMemoryCounters) -> int:
    """The number of keys in the counters."""
    assert counters._environment
    return int(counters._environment.stat()["entries"])


def test_only_the_owner_can_read_the_counters(counters, tmp_path):
    """The files are readable and writable by their user alone."""
    assert {"counters", "lock", "remaining"} == {path.name for path in tmp_path.iterdir()}
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}


def test_counting_before_opening_raises_an_error():
    """The error of a request without a lifespan says that the lifespan is missing."""
    with pytest.raises(RuntimeError, match="lifespan"):
        SharedMemoryCounters().hit(b"a", 1, 60)


def test_a_file_with_other_content_is_replaced(tmp_path):
    """Opening a file that is no database makes a new one, and says so."""
    (tmp_path / "counters").write_bytes(b"something else" * 1000)
    counters = SharedMemoryCounters()
    with capture_logs() as lines:
        counters.open(tmp_path)
    assert ["rate_limit_counters_replaced"] == [line["event"] for line in lines]
    assert counters.hit(b"a", 1, 60)
    counters.close()


def test_the_space_is_reserved_at_the_start(counters, tmp_path):
    """The whole file is allocated, so other users of shared memory cannot take the space."""
    assert (tmp_path / "counters").stat().st_blocks * 512 >= 16 * 1024 * 1024


def test_expired_keys_are_evicted(counters, clock):
    """With 100 clients in each window, 5,000 clients never leave more than 250 keys."""
    for number in range(5_000):
        counters.hit(b"%d" % number, 10, 60)
        clock[0] += 0.6  # A hundred in a minute.

    assert entries(counters) < 250


def test_the_number_of_keys_is_bounded(counters, monkeypatch):
    """With the longest logs and keys in random order, new clients are counted and half the file stays free."""
    now = time.monotonic()
    monkeypatch.setattr(
        shared_memory_counters, "pack", lambda _: pack((60, now, *(time.monotonic(), 1) * (SLICES + 2)))
    )
    random = Random(1)
    for number in range(5 * MAX_KEYS):
        key = number if number % 2 else random.randrange(10**6) * 10
        assert counters.hit(b"%064d" % key, 10, 60) is not None

    assert MAX_KEYS == entries(counters)
    assert counters._environment.info()["last_pgno"] * 4096 < 9 * 1024 * 1024


def test_the_key_whose_window_ends_first_is_evicted(counters, clock, monkeypatch):
    """A new client evicts the oldest key, not that of a client that was just counted."""
    monkeypatch.setattr(shared_memory_counters, "MAX_KEYS", 4)
    for name in (b"a", b"b", b"c", b"d"):
        counters.hit(name, 1, 60)
        clock[0] += 1
    counters.hit(b"e", 1, 60)

    assert counters.hit(b"a", 1, 60).admitted
    assert not counters.hit(b"e", 1, 60).admitted


def test_a_flag_is_changed_by_one_caller(counters):
    """Of several callers that set the same value, only the first gets True."""
    assert [True, False, True, False, True] == [
        counters.set_flag("redis", on) for on in (True, True, False, False, True)
    ]


def test_a_flag_is_never_evicted(counters, clock):
    """The eviction of clients never deletes a flag."""
    counters.set_flag("redis", True)
    for number in range(100):
        counters.hit(b"%d" % number, 1, 1)
        clock[0] += 100

    assert not counters.set_flag("redis", True)


def test_undoing_a_hit_frees_one_request(counters):
    """After one hit is undone, exactly one more request is admitted."""
    for _ in range(2):
        counters.hit(b"a", 2, 60)
    counters.undo_hit(b"a")

    assert [True, False] == [counters.hit(b"a", 2, 60).admitted for _ in range(2)]
    counters.undo_hit(b"unknown")


def test_a_stopped_lock_holder_delays_one_request(counters, tmp_path):
    """While another process holds the lock, one request waits 50 ms and the following ones do not wait.

    When the lock is free again, requests are counted again.
    """
    assert counters.hit(b"a", 2, 60).admitted
    other = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)

    began = time.monotonic()
    assert counters.hit(b"a", 2, 60) is None
    assert 0.05 <= time.monotonic() - began < 0.5
    began = time.monotonic()
    for _ in range(100):
        assert counters.hit(b"a", 2, 60) is None
        assert counters.read(b"a") is None
        counters.undo_hit(b"a")
    assert time.monotonic() - began < 0.05

    os.close(other)
    assert 1 == counters.read(b"a")[1]
    assert [True, False] == [counters.hit(b"a", 2, 60).admitted for _ in range(2)]


def test_opening_fails_while_another_process_holds_the_lock(tmp_path, monkeypatch):
    """The start of a worker waits for the lock for a bounded time."""
    monkeypatch.setattr(shared_memory_counters, "_START_LOCK_TIMEOUT_SECONDS", 0.1)
    other = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    counters = SharedMemoryCounters()
    with pytest.raises(TimeoutError):
        counters.open(tmp_path)
    counters.close()
    os.close(other)


def test_threads_count_exactly(counters):
    """The limit holds over all threads of a process, where synchronous handlers run."""
    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(lambda _: counters.hit(b"a", 100, 60).admitted, range(2_000)))

    assert 100 == sum(decisions)


def _send_costly(directory: Path) -> int:
    """Send 40 requests that count as 7 each, and return how many were admitted."""
    counters = SharedMemoryCounters()
    counters.open(directory)
    admitted = 0
    for _ in range(40):
        first = counters.hit(b"a", 200, 600)
        whole = counters.hit(b"a", 200, 600, 7, counted=1) if first and first.admitted else None
        admitted += whole is not None and whole.admitted
    counters.close()
    return admitted


def test_processes_count_exactly_what_requests_count_as(tmp_path):
    """Two processes send requests that count as several at once: no part of one is admitted, and each refused is 1."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        admitted = sum(pool.map(_send_costly, [tmp_path, tmp_path]))

    counters = SharedMemoryCounters()
    counters.open(tmp_path)
    _, count = counters.read(b"a") or (0, 0)
    counters.close()
    # A request that was refused whole has counted as one. At most 80 - admitted of them were not refused at once.
    assert 7 * admitted <= count <= 200
    assert 200 - 7 * admitted <= 80 - admitted
    assert 200 == count


def test_a_failure_releases_the_lock(counters, monkeypatch):
    """An error while counting is raised, and the next request is counted."""
    with monkeypatch.context() as broken:
        broken.setattr(shared_memory_counters, "count_request", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            counters.hit(b"a", 1, 60)
    assert counters.hit(b"a", 1, 60).admitted


def test_a_full_file_raises_one_of_the_declared_errors(counters, monkeypatch):
    """If the file is full, the error is one of `errors`, and the next request is counted."""
    with monkeypatch.context() as broken:
        broken.setattr(shared_memory_counters, "pack", lambda _: bytes(17 * 1024 * 1024))
        with pytest.raises(counters.errors):
            counters.hit(b"a", 1, 60)

    assert counters.hit(b"a", 1, 60).admitted
