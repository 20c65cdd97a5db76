import fcntl
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from app.health.last_report import LastReport


def test_a_report_is_new_until_any_worker_reports_it(tmp_path):
    """Two objects stand for two workers."""
    first, second = (LastReport(tmp_path, "tea") for _ in range(2))

    assert first.replace("hot")
    assert not second.replace("hot")
    assert not first.replace("hot")
    assert second.replace("cold")
    assert first.replace("hot")


def test_reports_with_different_names_are_apart(tmp_path):
    """Each has its own file."""
    assert LastReport(tmp_path, "tea").replace("hot")
    assert LastReport(tmp_path, "milk").replace("hot")


def test_each_report_is_new_without_a_file_that_can_be_used(tmp_path):
    """A line too many is better than none: no folder, a file that is locked, and one that is no text."""
    (tmp_path / "binary.report").write_bytes(b"\xff")
    with (tmp_path / "locked.report").open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        for report in (
            LastReport(None, "tea"),
            LastReport(tmp_path / "missing", "tea"),
            LastReport(tmp_path, "locked"),
            LastReport(tmp_path, "binary"),
        ):
            assert [True, True] == [report.replace("hot"), report.replace("hot")]


def test_workers_that_report_the_same_at_the_same_moment(tmp_path):
    """One of them is the first."""
    moment = Barrier(2)

    def report(number: int) -> bool:
        moment.wait()
        return LastReport(tmp_path, "tea").replace(str(number))

    with ThreadPoolExecutor(2) as pool:
        for number in range(100):
            assert [False, True] == sorted(pool.map(report, [number] * 2))
