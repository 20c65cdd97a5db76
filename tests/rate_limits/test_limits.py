from pathlib import Path

import lmdb
import pytest
from structlog.testing import capture_logs

from app.rate_limits import RateLimits
from app.settings import Settings

CLIENT = ("192.0.2.1", 1)


class Host(RateLimits):
    """A worker that keeps what its metrics hear of."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        super().__init__(Settings.load(_env_file=None, rate_limit_read="2/minute"), self)

    def decided(self, bucket: str, outcome: str) -> None:
        """Keep it."""
        self.heard.append(outcome)

    def degraded(self, degraded: bool) -> None:
        """Keep it."""
        self.heard.append(degraded)


def open_files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def read(limits: RateLimits, times: int) -> list[bool | None]:
    """Whether each of some reading requests is admitted."""
    decisions = [await limits.hit(limits.bucket("GET"), CLIENT) for _ in range(times)]
    return [decision and decision.admitted for decision in decisions]


@pytest.mark.parametrize(
    ("method", "bucket"),
    [("GET", "read"), ("HEAD", "read"), ("OPTIONS", "read"), ("POST", "write"), ("DELETE", "write"), ("ODD", "write")],
)
def test_a_method_reads_or_writes(method, bucket):
    """What is not known to read only is counted as writing."""
    assert bucket == Host().bucket(method).name


async def test_counters_outlive_a_worker(tmp_path):
    """A worker that replaces another one finds what the client has sent, unless the limit was changed."""
    async with (one := Host()).opened(tmp_path / "shared"):
        assert [True, True, False] == await read(one, 3)
    async with (two := Host()).opened(tmp_path / "shared"):
        assert [False] == await read(two, 1)
    changed = RateLimits(Settings.load(_env_file=None, rate_limit_read="3/minute"))
    async with changed.opened(tmp_path / "shared"):
        assert [True, True, True, False] == await read(changed, 4)


async def test_a_folder_that_cannot_be_used_does_not_stop_a_worker(tmp_path):
    """It counts for itself, and the log and the metrics tell that it does."""
    (tmp_path / "file").write_text("")
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path / "file" / "folder"):
            assert [True, True, False] == await read(limits, 3)
    assert ["rate_limit_storage_refused"] == [line["event"] for line in lines]
    assert [True, "admitted", "admitted", "refused"] == limits.heard


async def test_a_host_without_any_room_serves_without_counting(tmp_path, monkeypatch):
    """Where nothing can be written, requests are admitted, which the log and the metrics tell."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lmdb, "open", refuse)
    limits = Host()
    with capture_logs() as lines:
        async with limits.opened(tmp_path):
            assert [None, None, None] == await read(limits, 3)
    assert ["rate_limit_storage_refused"] * 2 == [line["event"] for line in lines]
    assert [True, True, *["uncounted"] * 3] == limits.heard


async def test_a_failure_to_count_is_told_once_and_admits(monkeypatch):
    """An error of the counters fails no request, and does not fill the log."""
    limits = Host()
    async with limits.opened():
        with monkeypatch.context() as broken, capture_logs() as lines:

            def fail(*_):
                raise lmdb.MapFullError("full")

            broken.setattr(type(limits._host), "hit", fail)
            assert [None, None, None] == await read(limits, 3)
        assert ["rate_limit_counting_failed"] == [line["event"] for line in lines]
        assert [True, True, False] == await read(limits, 3)


async def test_no_file_is_left_open(tmp_path):
    """Closing gives everything back."""
    before = open_files()
    async with Host().opened(tmp_path), Host().opened():
        pass
    assert before == open_files()
