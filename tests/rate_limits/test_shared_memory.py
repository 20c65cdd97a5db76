import fcntl
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from app.rate_limits import shared_memory
from app.rate_limits.shared_memory import MAX_KEYS, SharedMemory
from app.rate_limits.window import SLICES, pack


@pytest.fixture
def counters(tmp_path):
    """Open counters in a folder of their own."""
    opened = SharedMemory()
    opened.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: seconds, in a list of one."""
    now = [1000.0]

    class Time:
        sleep = staticmethod(time.sleep)
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(shared_memory, "time", Time)
    return now


def entries(counters: SharedMemory) -> int:
    """How many clients are remembered."""
    assert counters._environment
    return int(counters._environment.stat()["entries"])


def test_counters_are_one_users_own(counters, tmp_path):
    """Nobody else can read who has called, or change what was counted."""
    assert {"counters", "lock"} == {path.name for path in tmp_path.iterdir()}
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}


def test_private_counters_leave_nothing_behind():
    """Without a folder to share there are files for as long as they are open, and nobody can find them."""
    before = set(Path("/dev/shm").iterdir())
    counters = SharedMemory()
    counters.open(None)
    assert counters.hit(b"a", 1, 60) is not None
    assert not {path for path in set(Path("/dev/shm").iterdir()) - before if (path / "counters").exists()}
    counters.close()


def test_counting_before_the_start_says_what_is_missing():
    """A request that comes without the lifespan fails with a sentence."""
    with pytest.raises(RuntimeError, match="lifespan"):
        SharedMemory().hit(b"a", 1, 60)


def test_a_strange_file_is_refused(tmp_path):
    """A folder that holds something else is an error that the caller knows."""
    (tmp_path / "counters").write_bytes(b"something else" * 1000)
    counters = SharedMemory()
    with pytest.raises(counters.errors):
        counters.open(tmp_path)
    counters.close()


def test_the_room_is_reserved(counters, tmp_path):
    """Memory that others fill later cannot stop the counting."""
    assert (tmp_path / "counters").stat().st_blocks * 512 >= 16 * 1024 * 1024


def test_clients_that_are_gone_are_forgotten(counters, clock):
    """However many clients come by, not many more are kept than were there in the last window."""
    for number in range(5_000):
        counters.hit(b"%d" % number, 10, 60)
        clock[0] += 0.6  # A hundred in a minute.

    assert entries(counters) < 250


def test_more_clients_than_fit_make_room(counters, monkeypatch):
    """With the longest logs and keys, in a bad order, newcomers are counted and half the room stays free."""
    now = time.monotonic()
    monkeypatch.setattr(shared_memory, "pack", lambda _: pack((60, now, *(time.monotonic(), 1) * (SLICES + 2))))
    random = Random(1)
    for number in range(5 * MAX_KEYS):
        key = number if number % 2 else random.randrange(10**6) * 10
        assert counters.hit(b"%064d" % key, 10, 60) is not None

    assert MAX_KEYS == entries(counters)
    assert counters._environment.info()["last_pgno"] * 4096 < 9 * 1024 * 1024


def test_room_is_made_by_those_whose_time_ends_first(counters, clock, monkeypatch):
    """A client that was just refused is not forgotten for one who comes."""
    monkeypatch.setattr(shared_memory, "MAX_KEYS", 4)
    for name in (b"a", b"b", b"c", b"d"):
        counters.hit(name, 1, 60)
        clock[0] += 1
    counters.hit(b"e", 1, 60)

    assert counters.hit(b"a", 1, 60).admitted
    assert not counters.hit(b"e", 1, 60).admitted


def test_a_mark_is_set_by_one(counters):
    """Of several that see the same change, one is told that it was first."""
    assert [True, False, True, False, True] == [counters.mark("away", on) for on in (True, True, False, False, True)]


def test_a_mark_outlives_all_clients(counters, clock):
    """Making room for clients never removes a mark."""
    counters.mark("away", True)
    for number in range(100):
        counters.hit(b"%d" % number, 1, 1)
        clock[0] += 100

    assert not counters.mark("away", True)


def test_taking_back_leaves_the_rest(counters):
    """A request taken back can be sent again, and no more than that."""
    for _ in range(2):
        counters.hit(b"a", 2, 60)
    counters.take_back(b"a")

    assert [True, False] == [counters.hit(b"a", 2, 60).admitted for _ in range(2)]
    counters.take_back(b"never seen")


def test_a_holder_that_hangs_delays_one_request(counters, tmp_path):
    """While another process hangs with the lock, one request waits 50 ms, and afterwards nobody does.

    When the lock is free again, all are counted again.
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
        counters.take_back(b"a")
    assert time.monotonic() - began < 0.05

    os.close(other)
    assert 1 == counters.read(b"a")[1]
    assert [True, False] == [counters.hit(b"a", 2, 60).admitted for _ in range(2)]


def test_starting_beside_a_holder_that_hangs_fails(tmp_path, monkeypatch):
    """A worker does not wait without end for another one when it starts."""
    monkeypatch.setattr(shared_memory, "_START_PATIENCE_SECONDS", 0.1)
    other = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    counters = SharedMemory()
    with pytest.raises(TimeoutError):
        counters.open(tmp_path)
    counters.close()
    os.close(other)


def test_threads_count_exactly(counters):
    """Synchronous handlers run in threads; the limit is one over all of them."""
    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(lambda _: counters.hit(b"a", 100, 60).admitted, range(2_000)))

    assert 100 == sum(decisions)


def test_a_failure_frees_the_lock(counters, monkeypatch):
    """An error while counting is told, and does not hold up the next request."""
    with monkeypatch.context() as broken:
        broken.setattr(shared_memory, "spend", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            counters.hit(b"a", 1, 60)
    assert counters.hit(b"a", 1, 60).admitted


def test_a_full_file_is_an_error_the_caller_knows(counters, monkeypatch):
    """If room ran out after all, it is one of `errors`, and the next request is counted."""
    with monkeypatch.context() as broken:
        broken.setattr(shared_memory, "pack", lambda _: bytes(17 * 1024 * 1024))
        with pytest.raises(counters.errors):
            counters.hit(b"a", 1, 60)

    assert counters.hit(b"a", 1, 60).admitted
