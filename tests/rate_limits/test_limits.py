import fcntl
import os
from pathlib import Path

import lmdb
import pytest
from structlog.testing import capture_logs

from app.rate_limits import RateLimits
from app.rate_limits.shared_memory_counters import SharedMemoryCounters
from app.settings import Settings

CLIENT = ("192.0.2.1", 1)


class Host(RateLimits):
    """Rate limits that record the metrics they report."""

    def __init__(self) -> None:
        self.reported: list[object] = []
        super().__init__(Settings.load(_env_file=None, rate_limit_read="2/minute"), self)

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Record it."""
        self.reported.append(outcome)

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Record it."""
        self.reported.append(degraded)


def open_files() -> int:
    """The number of open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def read(limits: RateLimits, times: int) -> list[bool | None]:
    """Send reading requests and return for each whether it was admitted."""
    decisions = [await limits.hit(limits.quota("GET"), CLIENT) for _ in range(times)]
    return [decision and decision.admitted for decision in decisions]


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


async def test_a_worker_counts_alone_if_the_folder_cannot_be_used(tmp_path):
    """The worker serves, logs the failure and reports itself as degraded."""
    (tmp_path / "file").write_text("")
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path / "file" / "folder"):
            assert [True, True, False] == await read(limits, 3)
    assert ["rate_limit_storage_refused"] == [line["event"] for line in lines]
    assert [True, "admitted", "admitted", "refused"] == limits.reported


async def test_requests_are_admitted_uncounted_if_nothing_can_be_written(tmp_path, monkeypatch):
    """The failure is logged, the worker is degraded, and each request is reported as uncounted."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lmdb, "open", refuse)
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path):
            assert [None, None, None] == await read(limits, 3)
    assert ["rate_limit_storage_refused"] * 2 == [line["event"] for line in lines]
    assert [True, True, *["uncounted"] * 3] == limits.reported


async def test_a_counting_failure_is_logged_once_and_admits(monkeypatch):
    """An error of the counters fails no request. Its start and end are logged, and the worker is degraded."""
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened():
            with monkeypatch.context() as broken:

                def fail(*_):
                    raise lmdb.MapFullError("full")

                broken.setattr(SharedMemoryCounters, "hit", fail)
                assert [None, None, None] == await read(limits, 3)
            assert [True, True, False] == await read(limits, 3)

    assert ["rate_limit_counting_failed", "rate_limit_counting_restored"] == [line["event"] for line in lines]
    assert [True, *["uncounted"] * 3, False, "admitted", "admitted", "refused"] == limits.reported


async def test_a_lock_timeout_is_reported(tmp_path):
    """While another process holds the lock of the counters, requests are admitted and the worker is degraded."""
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path):
            other = os.open(tmp_path / "lock", os.O_RDWR)
            fcntl.flock(other, fcntl.LOCK_EX)
            assert [None, None, None] == await read(limits, 3)
            os.close(other)
            assert [True] == await read(limits, 1)

    assert ["rate_limit_counting_failed", "rate_limit_counting_restored"] == [line["event"] for line in lines]
    assert [True, *["uncounted"] * 3, False, "admitted"] == limits.reported


async def test_closing_leaves_no_file_open(tmp_path):
    """Counters in a folder and private counters close all their files."""
    before = open_files()
    async with Host().opened(tmp_path), Host().opened():
        pass
    assert before == open_files()
