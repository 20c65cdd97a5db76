import fcntl
import os
import struct
from pathlib import Path
from random import Random

import lmdb
import pytest
from structlog.testing import capture_logs

from app.rate_limits import RateLimits, shared_memory_counters
from app.rate_limits.shared_memory_counters import SharedMemoryCounters
from app.settings import Settings

CLIENT = "192.0.2.1"


class Host(RateLimits):
    """Rate limits that record the metrics they report."""

    def __init__(self, **settings: object) -> None:
        self.reported: list[object] = []
        super().__init__(Settings.load(_env_file=None, **{"rate_limit_read": "2/minute"} | settings), self)

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Record it."""
        self.reported.append(outcome)

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Record it."""
        self.reported.append(degraded)


def open_files() -> int:
    """The number of open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def read(limits: RateLimits, times: int) -> list[bool]:
    """Send reading requests and return for each whether it was admitted."""
    decisions = [await limits.hit(limits.quota("GET"), CLIENT) for _ in range(times)]
    return [decision.admitted for decision in decisions]


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"web_concurrency": 2}, [True]),
        ({"web_concurrency": 1}, []),
        ({"web_concurrency": 2, "rate_limit_enabled": False}, []),
    ],
)
async def test_several_workers_without_a_shared_folder_are_degraded(settings, reported):
    """A client can send its limit to each of them. One worker counts all requests, as Redis does for several."""
    limits = Host(**settings)
    async with limits.opened():
        assert reported == limits.reported


@pytest.mark.parametrize(
    ("method", "quota"),
    [
        ("GET", "read"),
        ("HEAD", "read"),
        ("OPTIONS", "read"),
        ("POST", "write"),
        ("DELETE", "write"),
        ("UNKNOWN", "write"),
    ],
)
def test_each_method_uses_the_read_or_the_write_quota(method, quota):
    """A method that is not known to be safe counts as writing."""
    assert quota == Host().quota(method).name


async def test_counters_survive_the_replacement_of_a_worker(tmp_path):
    """The next worker continues the counts of the previous one; a changed limit starts from zero."""
    async with (one := Host()).opened(tmp_path / "shared"):
        assert [True, True, False] == await read(one, 3)
    async with (two := Host()).opened(tmp_path / "shared"):
        assert [False] == await read(two, 1)
    changed = RateLimits(Settings.load(_env_file=None, rate_limit_read="3/minute"))
    async with changed.opened(tmp_path / "shared"):
        assert [True, True, True, False] == await read(changed, 4)


async def test_a_worker_stops_if_the_counters_from_which_it_has_slices_are_damaged(tmp_path):
    """It gives nothing back, and closes the counters."""
    limits = RateLimits(Settings.load(_env_file=None, web_concurrency=1))
    async with limits.opened(tmp_path):
        for client in ("a", "b"):
            for _ in range(8):
                await limits.hit(limits.quota("GET"), client)
        os.truncate(tmp_path / "counters", 0)

    with pytest.raises(RuntimeError):
        await limits.hit(limits.quota("GET"), "a")


async def test_a_worker_counts_alone_if_the_folder_cannot_be_used(tmp_path):
    """The worker serves, logs the failure, reports itself as degraded and holds the limit by itself."""
    (tmp_path / "file").write_text("")
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path / "file" / "folder"):
            assert [True, True, False] == await read(limits, 3)
    assert ["rate_limit_storage_refused"] == [line["event"] for line in lines]
    assert [True, "admitted", "admitted", "refused"] == limits.reported


async def test_a_counting_failure_is_logged_once_and_the_limit_still_holds(tmp_path, monkeypatch):
    """While the shared counters fail, the worker counts alone. Start and end are logged, and it is degraded."""
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path):
            with monkeypatch.context() as broken:

                def fail(*_, **__):
                    raise lmdb.MapFullError("full")

                broken.setattr(SharedMemoryCounters, "hit", fail)
                assert [True, True, False] == await read(limits, 3)
            assert [True, True, False] == await read(limits, 3)

    assert ["rate_limit_counting_failed", "rate_limit_counting_restored"] == [line["event"] for line in lines]
    counted = ["admitted", "admitted", "refused"]
    assert [True, *counted, False, *counted] == limits.reported


async def test_a_lock_that_another_program_holds_is_reported(tmp_path):
    """While another process holds the lock, the worker counts alone and is degraded; then it counts shared again."""
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path):
            other = os.open(tmp_path / "lock", os.O_RDWR)
            fcntl.flock(other, fcntl.LOCK_EX)
            assert [True, True, False] == await read(limits, 3)
            os.close(other)
            assert [True] == await read(limits, 1)

    assert ["rate_limit_counting_failed", "rate_limit_counting_restored"] == [line["event"] for line in lines]
    assert [True, "admitted", "admitted", "refused", False, "admitted"] == limits.reported


def overwrite(file: Path, data: bytes, offset: int = 0) -> None:
    """Write over a part of the file, as another program that has it open."""
    descriptor = os.open(file, os.O_RDWR)
    os.pwrite(descriptor, data, offset)
    os.close(descriptor)


DAMAGES = {
    "garbage everywhere": lambda file: overwrite(file, Random(1).randbytes(file.stat().st_size)),
    "garbage after the head": lambda file: overwrite(file, Random(1).randbytes(1_000_000), 8192),
    "zeros": lambda file: overwrite(file, bytes(file.stat().st_size)),
    "a short text in its place": lambda file: file.write_bytes(b"something else"),
    "truncated": lambda file: os.truncate(file, 0),
    "truncated to a page": lambda file: os.truncate(file, 4096),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damaged_counters_are_noticed_by_the_next_request(tmp_path, monkeypatch, damage):
    """The worker is degraded, says so once, and holds the limit by itself. The next worker makes new counters."""
    monkeypatch.setattr(shared_memory_counters, "CHECK_SECONDS", 0)
    limits, new = Host(), Host()
    async with limits.opened(tmp_path):
        assert [True] == await read(limits, 1)
        damage(tmp_path / "counters")
        with capture_logs() as lines:
            assert [True, True, False] == await read(limits, 3)

    assert ["rate_limit_counting_failed"] == [line["event"] for line in lines]
    assert ["admitted", True, "admitted", "admitted", "refused"] == limits.reported
    async with new.opened(tmp_path):
        assert [True, True, False] == await read(new, 3)
    assert ["admitted", "admitted", "refused"] == new.reported


@pytest.mark.parametrize("change", ["undo_hit", "delete", "delete_all"])
async def test_a_change_of_damaged_counters_raises_nothing(tmp_path, monkeypatch, change):
    """The worker counts alone from then on, and is degraded."""
    monkeypatch.setattr(shared_memory_counters, "CHECK_SECONDS", 0)
    limits = Host()
    async with limits.opened(tmp_path):
        key = limits.quota("GET").key("192.0.2.1")
        assert [True, True] == await read(limits, 2)
        (tmp_path / "counters").unlink()
        with capture_logs() as lines:
            getattr(limits._host, change)(*([] if change == "delete_all" else [key]))
        assert ["rate_limit_counting_failed"] == [line["event"] for line in lines]
        assert [True, True, False] == await read(limits, 3)
    assert ["admitted", "admitted", True, "admitted", "admitted", "refused"] == limits.reported


@pytest.mark.parametrize("value", [0.0, -1e300, float("nan"), float("inf")])
async def test_an_entry_with_other_numbers_is_damage(tmp_path, value):
    """Numbers that another program has written into an entry admit no request beyond the limit."""
    limits = Host()
    async with limits.opened(tmp_path):
        assert [True] == await read(limits, 1)
        environment = limits._host._shared._environment
        assert environment
        with environment.begin(write=True) as transaction:
            key = limits.quota("GET").key("192.0.2.1")
            transaction.put(key, struct.pack("<4d", value, value, value, value) + b"\0\0\0\0")
        assert [True, True, False, False] == await read(limits, 4)
    assert True in limits.reported


async def test_closing_leaves_no_file_open(tmp_path, monkeypatch):
    """Counters in a folder close all their files, also after damage."""
    monkeypatch.setattr(shared_memory_counters, "CHECK_SECONDS", 0)
    before = open_files()
    async with Host().opened(tmp_path / "whole"), (damaged := Host()).opened(tmp_path / "damaged"):
        (tmp_path / "damaged" / "counters").unlink()
        await read(damaged, 1)
    assert before == open_files()
