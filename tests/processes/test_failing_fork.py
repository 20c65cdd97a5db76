"""The master while the system starts no more processes."""

import os
import signal

import httpx
import pytest

from tests.processes.failing_fork import FailingFork
from tests.processes.plain_server import plain
from tests.processes.server import Server, eventually


@pytest.fixture
def fault(tmp_path):
    """A fault of `fork`, not set."""
    return FailingFork(tmp_path)


def failures(server: Server) -> int:
    """How often the master has said that it could not start a worker."""
    return server.output().count("A worker could not be started: ")


def answers(server: Server) -> bool:
    """Whether the server answers a request."""
    return httpx.get(f"http://127.0.0.1:{server.port}/").status_code == 200


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_a_failing_fork_keeps_the_other_workers(fault, error):
    """While a worker cannot be replaced the others serve, and it is replaced once the system starts processes again."""
    with plain(2, **fault.environment) as server:
        server.serving(workers=2)
        victim, sibling = server.workers()
        with fault.set(error):
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: failures(server) >= 2, seconds=20, what="two failed starts")
            assert [sibling] == server.workers()
            assert answers(server)
            assert "1 workers keep serving" in server.output()
        eventually(lambda: len(server.serving_workers()) == 2, seconds=20, what="a replacement")
        assert 0 == server.stop()


def test_a_failing_fork_during_a_reload_keeps_the_workers(fault):
    """At SIGHUP and at SIGTTIN the old workers serve on, and are replaced once the system starts processes again."""
    with plain(2, **fault.environment) as server:
        server.serving(workers=2)
        old = set(server.workers())
        with fault.set("EAGAIN"):
            server.send(signal.SIGTTOU)
            eventually(lambda: len(server.workers()) == 1, seconds=20, what="one worker less")
            server.send(signal.SIGTTIN)
            eventually(lambda: failures(server) >= 1, seconds=20, what="a failed start")
            server.send(signal.SIGHUP)
            eventually(lambda: failures(server) >= 3, seconds=20, what="further failed starts")
            assert old >= set(server.workers()) != set()
            assert answers(server)

        def replaced() -> bool:
            return len(server.serving_workers()) == 2 and old.isdisjoint(server.workers())

        eventually(replaced, seconds=30, what="two new workers")


def test_a_failing_fork_at_the_start_is_tried_again(fault):
    """The master does not end, and serves once the system starts processes."""
    with plain(1, **fault.environment) as server:
        with fault.set("EAGAIN"):
            eventually(lambda: failures(server) >= 2, seconds=20, what="two failed starts")
            assert server.process.poll() is None
        server.serving(seconds=20)
        assert answers(server)
