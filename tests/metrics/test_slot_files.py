import threading
import time
from pathlib import Path

import pytest

from app.metrics.directory import worker_gone
from tests.metrics.conftest import Start, Worker

COUNTED = 'http_requests_total{handler="/items",method="GET",status="200"}'
LASTED = 'http_request_duration_seconds_count{handler="/items",method="GET"}'


def test_whoever_is_asked_says_the_same(start: Start):
    """Three workers' counts are one sum, whichever answers the scrape."""
    workers = [start(slot) for slot in range(3)]
    for number, worker in enumerate(workers):
        worker.count(100 * (number + 1))

    for worker in workers:
        found = worker.scrape()
        assert 600 == found[COUNTED] == found[LASTED]


def test_counters_are_exact_over_kills(start: Start):
    """Who replaces a killed worker goes on counting where that one ended, in the same files."""
    for _ in range(4):
        worker = start(0)
        worker.count(250)
        worker.kill()
    worker = start(0)

    assert 1_000 == worker.scrape()[COUNTED]


def test_counters_never_fall(start: Start, tmp_path: Path):
    """Killed in the middle of counting, at any moment, a worker leaves every counter readable and no smaller."""
    watcher = start(9)
    seen: dict[str, float] = {}
    for round_ in range(6):
        worker = start(0)
        counting = threading.Thread(target=_count_until_killed, args=(worker,))
        counting.start()
        time.sleep(0.02 * round_)
        worker.kill()
        counting.join()
        found = watcher.scrape()
        counters = {
            name: value for name, value in found.items() if "_total" in name or "_count" in name or "_bucket" in name
        }
        assert all(counters.get(name, 0) >= value for name, value in seen.items())
        seen = counters

    assert seen[COUNTED] > 0
    assert {"0", "9"} == {file.stem.rpartition("_")[2] for file in tmp_path.glob("*.db")}


def test_gauges_of_a_worker_end_with_it(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a dead worker held is not shown any more; what it counted is."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    first, second = start(0), start(1)
    first.tell("use_connections 3")
    second.tell("use_connections 2")
    first.count(5)
    assert 5 == second.scrape()["database_pool_in_use"]
    first.kill()
    worker_gone(0)

    found = second.scrape()
    assert 2 == found["database_pool_in_use"]
    assert 5 == found["database_pool_size"]
    assert 5 == found[COUNTED]


def test_gauges_of_a_slots_last_holder_are_forgotten(start: Start):
    """A new worker shows its own connections, even if nobody tidied up after the last one."""
    worker = start(0)
    worker.tell("use_connections 3")
    worker.kill()

    assert 0 == start(0).scrape()["database_pool_in_use"]


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 100, b"\x50\0\0\0" + b"x" * 200])
def test_a_torn_file_does_not_break_the_scrape(start: Start, tmp_path: Path, content: bytes):
    """A file that a killed process left half made costs its own numbers only."""
    worker = start(0)
    worker.count(3)
    for kind in ("counter", "histogram", "gauge_livesum"):
        (tmp_path / f"{kind}_7.db").write_bytes(content)

    assert 3 == worker.scrape()[COUNTED]
    replacement = start(7)
    replacement.count(4)
    assert 7 == worker.scrape()[COUNTED]


def test_a_full_directory_stops_nobody(start: Start, tmp_path: Path):
    """A worker that cannot make its files counts for itself, and says so in the scrape and in the log."""
    worker = start(0, LARGEST_FILE="1000")
    worker.count(3)

    found = worker.scrape()
    assert 3 == found[COUNTED]
    assert 0 == found["metrics_shared"]
    assert [] == list(tmp_path.glob("*.db"))


def test_a_read_only_directory_stops_nobody(start: Start, tmp_path: Path):
    """As above; root may write everywhere, so a file stands where the folder should be."""
    folder = tmp_path / "folder"
    folder.touch()
    worker = start(0, PROMETHEUS_MULTIPROC_DIR=str(folder))
    worker.count(3)

    assert (3, 0) == (worker.scrape()[COUNTED], worker.scrape()["metrics_shared"])


def test_files_grow_without_holes(start: Start, tmp_path: Path):
    """Every byte that is mapped is on the file system: a hole would kill the process where that is full."""
    worker = start(0)
    worker.tell("spread 300")
    files = list(tmp_path.glob("*.db"))

    assert max(file.stat().st_size for file in files) >= 1024 * 1024
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in files)
    assert 300 == sum(value for name, value in worker.scrape().items() if name.startswith("http_requests_total"))


def test_a_directory_that_fills_up_stops_nobody(start: Start):
    """What is already counted is counted on; series for which there is no room are left out."""
    worker = start(0, LARGEST_FILE=str(300 * 1024))
    worker.count(1)
    worker.tell("spread 300")
    worker.count(1)

    found = worker.scrape()
    assert 2 == found[COUNTED]
    assert 10 < sum(name.startswith("http_requests_total") for name in found) < 200


def _count_until_killed(worker: Worker) -> None:
    try:
        while True:
            worker.count(50)
    except (OSError, ValueError):  # killed
        return
