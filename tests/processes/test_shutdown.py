"""How a server shuts down, and what happens to its requests."""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster import slow_down_creations
from tests.processes.history import create
from tests.processes.load import Request, load
from tests.processes.plain_server import facts, plain
from tests.processes.server import service


def test_a_shutdown_loses_no_request():
    """After SIGTERM under load every request that has a connection is answered, and the exit code is 0."""
    with plain(2) as server:
        server.serving(workers=2)
        with load(server.port, request=lambda n: Request(target="/?sleep=0.5" if n % 10 == 0 else "/")) as report:
            time.sleep(1.5)
            assert 0 == server.stop()

        assert [] == report.failures(apart_from=("refused",))
        assert report.statuses[200] > 200
        assert "SIGTERM" not in server.output()


@pytest.mark.parametrize("how", ["reload", "shutdown"])
def test_a_request_in_flight_is_answered(how):
    """A draining worker waits for its requests, and its heartbeat continues longer than WORKER_TIMEOUT_SECONDS."""
    with plain(1, WORKER_TIMEOUT_SECONDS="2", GRACEFUL_SECONDS="20") as server:
        server.serving()
        with load(
            server.port, kept=1, fresh=0, rate=1, seconds=0.5, request=lambda _: Request(target="/?sleep=4.5")
        ) as report:
            time.sleep(0.3)
            if how == "reload":
                server.reload()
            else:
                assert 0 == server.stop()

        assert {200: 1} == report.statuses


def test_connections_that_wait_to_be_accepted_are_served():
    """A worker that was busy at SIGTERM still serves the clients that had connected by then."""
    with plain(1) as server:
        server.serving()
        with load(server.port, kept=1, fresh=0, rate=1, seconds=0.1, request=lambda _: Request(target="/?block=1")):
            time.sleep(0.3)
            with load(server.port, kept=0, fresh=20, rate=200, seconds=0.1) as waiting:
                time.sleep(0.3)
                assert 0 == server.stop()

        assert {200: 20} == waiting.statuses


def test_a_request_that_takes_longer_than_graceful_seconds_is_cancelled():
    """It is answered 503, and the server ends in time."""
    with plain(1, GRACEFUL_SECONDS="1") as server:
        server.serving()
        with load(
            server.port, kept=1, fresh=0, rate=1, seconds=0.5, request=lambda _: Request(target="/?sleep=20")
        ) as report:
            time.sleep(0.5)
            assert 0 == server.stop(seconds=5)

        assert {503: 1} == report.statuses


def test_sigint_ends_the_server_at_once():
    """It does not wait for requests."""
    with plain(2) as server:
        server.serving(workers=2)
        with load(server.port, kept=1, fresh=0, rate=1, seconds=0.5, request=lambda _: Request(target="/?sleep=20")):
            time.sleep(0.5)
            assert 0 == server.stop(signal.SIGINT, seconds=3)


def test_sigint_ends_the_lifespan(database_url):
    """Ctrl+C closes what each worker has opened, and logs no error."""
    with service(database_url, workers=2) as server:
        server.serving(workers=2)
        assert 0 == server.stop(signal.SIGINT)
        lines = [json.loads(line) for line in server.output().splitlines()]

    assert 2 == sum(line["event"] == "worker_stopped" for line in lines)
    assert [] == [line for line in lines if line["level"] == "error"]


def test_workers_end_when_their_master_is_killed():
    """If they stayed they would keep the port, and no new master could listen."""
    with plain(2) as server:
        server.serving(workers=2)
        workers = [psutil.Process(pid) for pid in server.workers()]
        server.send(signal.SIGKILL)
        gone, _ = psutil.wait_procs(workers, timeout=5)
        assert 2 == len(gone)


def test_the_metrics_directory_is_removed_at_the_end():
    """The folder in shared memory is created at the start and kept over a reload."""
    with plain(1) as server:
        server.serving()
        with load(server.port, rate=20, kept=1, fresh=0) as report:
            time.sleep(0.3)
            server.reload()
            time.sleep(0.3)
        (folder,) = facts(report, "metrics")
        assert 2 == len(facts(report, "pid"))
        assert Path(folder).is_dir()
        assert 0 == server.stop()
        assert not Path(folder).exists()


def test_a_write_that_is_cancelled_at_the_end_is_answered_with_a_problem(own_cluster):
    """The 503 has the request's id and says that the write may have been applied, and the log line has its status."""
    slow_down_creations(own_cluster.url, seconds=10)
    with service(own_cluster.url, GRACEFUL_SECONDS="1", DATABASE_STATEMENT_SECONDS="20") as server:
        server.serving()
        with load(server.port, kept=1, fresh=0, rate=1, seconds=0.5, request=create) as report:
            time.sleep(0.5)
            assert 0 == server.stop(seconds=6)
        records = [json.loads(line) for line in server.output().splitlines()]

    (answer,) = [result.answer for result in report.results]
    assert answer
    problem = json.loads(answer.body)
    assert (503, "shutting_down") == (answer.status, problem["code"])
    assert "may or may not have been applied" in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert [503] == [record["status"] for record in records if record["event"] == "request_served"]
