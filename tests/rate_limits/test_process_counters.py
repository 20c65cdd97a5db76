from concurrent.futures import ThreadPoolExecutor

import pytest

from app.rate_limits import process_counters
from app.rate_limits.process_counters import ProcessCounters


@pytest.fixture
def counters():
    """Empty counters."""
    return ProcessCounters()


def test_threads_count_exactly(counters):
    """The limit holds over all threads of the process."""
    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(lambda _: counters.hit(b"a", 100, 60).admitted, range(2_000)))

    assert 100 == sum(decisions)


def test_the_number_of_keys_is_bounded(counters, monkeypatch):
    """A new client evicts the one that was counted least recently."""
    monkeypatch.setattr(process_counters, "MAX_KEYS", 3)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        counters.hit(key, 2, 60)

    assert {b"a": 2, b"c": 1, b"d": 1} == {key: counters.read(key)[1] for key in counters._logs}


def test_a_request_can_be_undone(counters):
    """After a request is undone, exactly one more is admitted; a deleted client starts from zero."""
    for _ in range(2):
        counters.hit(b"a", 2, 60)
    counters.undo_hit(b"a")
    counters.undo_hit(b"unknown")
    assert [True, False] == [counters.hit(b"a", 2, 60).admitted for _ in range(2)]

    counters.delete(b"a")
    assert counters.read(b"a") is None
    assert counters.hit(b"a", 1, 60).admitted
    counters.delete_all()
    assert counters.read(b"a") is None
