import os
import signal
import time

import pytest

from tests.processes.history import History
from tests.processes.load import load
from tests.processes.server import eventually, service
from tests.processes.watch import print_figures


def test_a_killed_worker_loses_only_its_own_requests(database_url):
    """After SIGKILL of one of 4 workers under 300 requests a second, a replacement serves within 3 s."""
    history = History(database_url)
    with service(database_url, workers=4) as server:
        server.serving(workers=4)
        siblings = server.workers()
        victim = siblings.pop()
        with load(server.port, request=history.request) as report:
            time.sleep(1)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            eventually(lambda: len(set(server.serving_workers()) - {victim}) == 4, seconds=3, what="a replacement")
            replaced = time.monotonic()
            time.sleep(1)
        assert set(siblings) < set(server.workers())

    failures = report.failures()
    print_figures(sent=len(report.results), failed=len(failures), replaced_after_seconds=replaced - killed)
    assert len(failures) <= 30
    # The process ends a moment later, and until then a client may connect to it.
    assert all(e.started - 0.3 < killed < e.started + e.seconds + 0.2 for e in failures), report
    assert {"refused"}.isdisjoint({e.failure for e in failures})
    acknowledged = history.check(report)["acknowledged"]
    print_figures(acknowledged=acknowledged)
    assert acknowledged > 100


def test_a_hung_worker_is_replaced_while_the_others_serve(database_url):
    """After SIGSTOP of one of 3 workers only its own clients wait. It is replaced within 3 s after its timeout."""
    history = History(database_url)
    with service(database_url, workers=3, WORKER_TIMEOUT_SECONDS="2") as server:
        server.serving(workers=3)
        before = set(server.workers())
        with load(server.port, rate=100, kept=15, fresh=15, request=history.request) as report:
            time.sleep(0.5)
            os.kill(min(before), signal.SIGSTOP)
            began = time.monotonic()
            eventually(lambda: len(set(server.serving_workers()) - {min(before)}) == 3, seconds=5, what="a new worker")
            replaced = time.monotonic()
            time.sleep(0.5)
        assert before - {min(before)} < set(server.workers())

    print_figures(sent=len(report.results), failed=len(report.failures()), replaced_after_seconds=replaced - began)
    assert len(report.failures()) <= 15
    during_the_hang = [e for e in report.results if began + 0.1 < e.started < began + 2]
    quick = [e for e in during_the_hang if e.answer and e.seconds < 1]
    assert len(quick) > 60
    acknowledged = history.check(report)["acknowledged"]
    print_figures(acknowledged=acknowledged)
    assert acknowledged > 100


@pytest.mark.parametrize("how", ["reload", "recycling", "shutdown"])
def test_replacing_workers_loses_no_request_and_no_write(database_url, how):
    """This holds for five reloads, for recycling and for a shutdown, each under load."""
    history = History(database_url)
    settings = {"MAX_REQUESTS": "150", "MAX_REQUESTS_JITTER": "50"} if how == "recycling" else {}
    with service(database_url, workers=2, **settings) as server:
        server.serving(workers=2)
        before = set(server.workers())
        with load(server.port, rate=200, request=history.request) as report:
            time.sleep(0.5)
            if how == "reload":
                for _ in range(5):
                    server.reload()
            elif how == "recycling":
                eventually(lambda: not before & set(server.workers()), seconds=20, what="both recycled")
            else:
                assert 0 == server.stop()
            time.sleep(0.5)

    print_figures(sent=len(report.results), failed=len(report.failures(apart_from=("refused",))))
    assert [] == report.failures(apart_from=("refused",) if how == "shutdown" else ())
    assert set(report.statuses) == {200, 201}
    counts = history.check(report)
    print_figures(acknowledged=counts["acknowledged"])
    assert counts["acknowledged"] > 30
    assert 0 == counts["unknown"] or how == "shutdown"
