"""How a server ends, and what becomes of the requests it has."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.processes.load import Request, load
from tests.processes.plain_server import facts, plain


def test_the_end_loses_no_request():
    """SIGTERM under load: every request that found a connection is answered, and the server ends with 0."""
    with plain(2) as server:
        server.serving(workers=2)
        with load(server.port, request=lambda n: Request(target="/?sleep=0.5" if n % 10 == 0 else "/")) as report:
            time.sleep(1.5)
            assert 0 == server.stop()

        assert [] == report.failures(apart_from=("refused",))
        assert report.statuses[200] > 200
        assert "SIGTERM" not in server.output()


@pytest.mark.parametrize("how", ["reload", "end"])
def test_a_request_in_flight_may_end(how):
    """A worker that drains waits for its requests, and its heartbeat goes on although that takes long."""
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
    """A worker that has been busy when the end came still serves those who had connected by then."""
    with plain(1) as server:
        server.serving()
        with load(server.port, kept=1, fresh=0, rate=1, seconds=0.1, request=lambda _: Request(target="/?block=1")):
            time.sleep(0.3)
            with load(server.port, kept=0, fresh=20, rate=200, seconds=0.1) as waiting:
                time.sleep(0.3)
                assert 0 == server.stop()

        assert {200: 20} == waiting.statuses


def test_a_request_that_outlasts_the_graceful_time_is_cut_short():
    """It is answered 503, and the server ends in time."""
    with plain(1, GRACEFUL_SECONDS="1") as server:
        server.serving()
        with load(
            server.port, kept=1, fresh=0, rate=1, seconds=0.5, request=lambda _: Request(target="/?sleep=20")
        ) as report:
            time.sleep(0.5)
            assert 0 == server.stop(seconds=5)

        assert {503: 1} == report.statuses


def test_an_interrupt_ends_at_once():
    """SIGINT, as from a terminal, does not wait for requests."""
    with plain(2) as server:
        server.serving(workers=2)
        with load(server.port, kept=1, fresh=0, rate=1, seconds=0.5, request=lambda _: Request(target="/?sleep=20")):
            time.sleep(0.5)
            assert 0 == server.stop(signal.SIGINT, seconds=3)


def test_workers_do_not_outlive_a_killed_master():
    """Left alone they would keep the port, and no new master could listen."""
    with plain(2) as server:
        server.serving(workers=2)
        workers = [psutil.Process(pid) for pid in server.workers()]
        server.send(signal.SIGKILL)
        gone, _ = psutil.wait_procs(workers, timeout=5)
        assert 2 == len(gone)


def test_the_metrics_folder_goes_with_the_server():
    """The folder in shared memory is made for the workers, survives a reload, and is removed at the end."""
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
