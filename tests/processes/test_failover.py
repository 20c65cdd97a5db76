import json
import time

import pytest

from tests.processes.history import History
from tests.processes.load import load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import eventually, service
from tests.processes.test_faults_database import after, assert_all_stored, counted, succeeded
from tests.processes.watch import counting_backends, print_figures
from tests.replication import frozen, primary_and_standby, promote, url_of, wait_for_standby

pytestmark = pytest.mark.slow


def test_writes_go_on_with_the_promoted_standby():
    """The first host of the URL freezes under load, and the other is promoted after 3 s. No acknowledged write is lost.

    Every request is answered, and no worker restarts.
    """
    with primary_and_standby() as (primary, standby):
        history = History(primary.url)
        with service(url_of(primary, standby), workers=2) as server:
            server.serving(workers=2)
            workers = server.workers()
            with load(server.port, rate=150, request=history.request) as report:
                time.sleep(2)
                with frozen(primary) as began:
                    time.sleep(3)
                    promoted = promote(standby)
                    time.sleep(6)
            assert workers == server.workers()
            assert '"event":"database_host_left"' in server.output()
        writes = [e for e in after(report, began) if e.request.method != "GET" and succeeded(e)]
        resumed = min(e.started + e.seconds for e in writes if e.started + e.seconds > promoted)
        print_figures(
            without_a_write_seconds=resumed - began, after_promotion_seconds=resumed - promoted, **counted(report)
        )
        assert resumed - promoted < 3
        assert set(report.statuses) <= {200, 201, 503, 504}
        assert all(map(succeeded, after(report, resumed + 1)))
        history.url = standby.url
        assert_all_stored(history, report, at_least=300)


def test_a_worker_is_ready_soon_after_the_promotion():
    """Without any request: the check itself finds that the primary is frozen, and then that the other host leads."""
    with primary_and_standby() as (primary, standby), service(url_of(primary, standby), workers=2) as server:
        server.serving(workers=2)
        eventually(lambda: fetch(server.port, "/health/ready")[0] == 200, seconds=30, what="ready")
        with frozen(primary) as began:
            eventually(lambda: total(scrape(server.port), "worker_ready") == 0, seconds=15, what="no worker ready")
            noticed = time.monotonic()
            promoted = promote(standby)
            eventually(lambda: total(scrape(server.port), "worker_ready") == 2, seconds=15, what="both workers ready")
            print_figures(noticed_seconds=noticed - began, ready_after_promotion_seconds=time.monotonic() - promoted)
        lines = [json.loads(line) for line in server.output().splitlines() if "readiness_changed" in line]
        assert all(line["cause"] for line in lines if line["database"] != "ok")


def test_sessions_do_not_grow_while_a_synchronous_standby_is_lost(own_cluster):
    """Writes are 504 or 503, the sessions stay within their budget, and writes go on as soon as they may."""
    history = History(own_cluster.url)
    with service(own_cluster.url, workers=2, DATABASE_STATEMENT_SECONDS="1") as server:
        server.serving(workers=2)
        with (
            counting_backends(own_cluster.url) as backends,
            load(server.port, rate=100, request=history.request) as report,
        ):
            time.sleep(1)
            wait_for_standby(own_cluster, "gone")
            time.sleep(8)
            wait_for_standby(own_cluster, "")
            restored = time.monotonic()
            time.sleep(4)
        print_figures(most_backends=max(backends), **counted(report))
        assert max(backends) <= 20
        assert report.statuses[504] > 20
        assert all(map(succeeded, after(report, restored + 2)))
        assert_all_stored(history, report, at_least=100)
