import threading
import time
from pathlib import Path

import pytest

from app.metrics.directory import worker_gone
from tests.metrics.conftest import Start, Worker

COUNTED = 'http_requests_total{code="",handler="/samples",method="GET",status="200"}'
DURATION_COUNT = 'http_request_duration_seconds_count{handler="/samples",method="GET"}'


def test_every_worker_answers_a_scrape_with_the_same_sums(start: Start):
    """The counts of three workers are added up, whichever worker answers."""
    workers = [start(slot) for slot in range(3)]
    for number, worker in enumerate(workers):
        worker.count(100 * (number + 1))

    for worker in workers:
        found = worker.scrape()
        assert 600 == found[COUNTED] == found[DURATION_COUNT]


def test_counters_continue_after_a_worker_is_killed(start: Start):
    """The worker that replaces a killed one continues its counters in the same files."""
    for _ in range(4):
        worker = start(0)
        worker.count(250)
        worker.kill()
    worker = start(0)

    assert 1_000 == worker.scrape()[COUNTED]


def test_counters_never_decrease(start: Start, tmp_path: Path):
    """When a worker is killed while it counts, every counter stays readable and does not decrease."""
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


def test_the_gauges_of_an_ended_worker_are_removed(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A scrape no longer shows an ended worker's gauges, and still shows its counters."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    first, second = start(0), start(1)
    first.command("use_connections 3")
    second.command("use_connections 2")
    first.count(5)
    found = second.scrape()
    assert 5 == found["database_pool_in_use"] == found['database_replica_pool_in_use{replica="2"}']
    first.kill()
    worker_gone(0)

    found = second.scrape()
    assert 2 == found["database_pool_in_use"] == found['database_replica_pool_in_use{replica="2"}']
    assert 5 == found["database_pool_size"] == found['database_replica_pool_size{replica="2"}']
    assert 5 == found[COUNTED]


def test_a_new_worker_does_not_show_the_gauges_of_the_previous_one(start: Start):
    """A new worker resets its slot's gauges, even if the master did not delete them."""
    worker = start(0)
    worker.command("use_connections 3")
    worker.kill()

    assert 0 == start(0).scrape()["database_pool_in_use"]


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 100, b"\x50\0\0\0" + b"x" * 200])
def test_a_damaged_file_does_not_break_the_scrape(start: Start, tmp_path: Path, content: bytes):
    """The scrape leaves out a damaged file and shows all others."""
    worker = start(0)
    worker.count(3)
    for kind in ("counter", "histogram", "gauge_livesum"):
        (tmp_path / f"{kind}_7.db").write_bytes(content)

    assert 3 == worker.scrape()[COUNTED]
    replacement = start(7)
    replacement.count(4)
    assert 7 == worker.scrape()[COUNTED]


def test_a_worker_counts_alone_on_a_full_file_system(start: Start, tmp_path: Path):
    """A worker that cannot create its files counts alone, and the scrape shows `metrics_shared` 0."""
    worker = start(0, LARGEST_FILE="1000")
    worker.count(3)

    found = worker.scrape()
    assert 3 == found[COUNTED]
    assert 0 == found["metrics_shared"]
    assert [] == list(tmp_path.glob("*.db"))


def test_a_worker_counts_alone_if_the_folder_cannot_be_written(start: Start, tmp_path: Path):
    """As above. Root may write everywhere, so the path is that of a file."""
    folder = tmp_path / "folder"
    folder.touch()
    worker = start(0, PROMETHEUS_MULTIPROC_DIR=str(folder))
    worker.count(3)

    assert (3, 0) == (worker.scrape()[COUNTED], worker.scrape()["metrics_shared"])


def test_all_blocks_of_a_growing_file_are_allocated(start: Start, tmp_path: Path):
    """An unallocated block would kill the process with SIGBUS on a full file system."""
    worker = start(0)
    worker.command("spread 300")
    files = list(tmp_path.glob("*.db"))

    assert max(file.stat().st_size for file in files) >= 1024 * 1024
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in files)
    assert 300 == sum(value for name, value in worker.scrape().items() if name.startswith("http_requests_total"))


def test_existing_series_are_counted_when_the_file_system_is_full(start: Start):
    """Series that exist are still counted; new series that do not fit are left out."""
    worker = start(0, LARGEST_FILE=str(300 * 1024))
    worker.count(1)
    worker.command("spread 300")
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
