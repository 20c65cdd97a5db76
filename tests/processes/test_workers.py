"""How workers are replaced, and how many live."""

import contextlib
import os
import signal
import time

import pytest

from tests.processes.load import Request, load
from tests.processes.plain_server import facts, plain
from tests.processes.server import eventually
from tests.processes.watch import polling


@pytest.mark.parametrize("workers", [1, 2])
def test_recycling_loses_no_request(workers):
    """A worker that has answered MAX_REQUESTS serves until its replacement does, even if it is the only one."""
    with plain(workers, MAX_REQUESTS="150", MAX_REQUESTS_JITTER="50") as server:
        server.serving(workers=workers)
        with load(server.port) as report, polling(lambda: len(server.workers()), every=0.02) as counts:
            time.sleep(4)

        assert [] == report.failures()
        assert len(facts(report, "pid")) >= workers + 2
        assert max(counts) <= workers + 1


@pytest.mark.parametrize("how", ["reload", "recycling"])
def test_a_new_worker_serves_before_an_old_one_stops(how):
    """While the replacement of the only worker takes 2.5 s to start, no request waits for it."""
    settings = {"MAX_REQUESTS": "100"} if how == "recycling" else {}
    with plain(1, TEST_START_SECONDS="2.5", **settings) as server:
        server.serving()
        with load(server.port, rate=100, kept=5, fresh=5) as report:
            if how == "reload":
                server.reload()
            time.sleep(5.5 if how == "recycling" else 0.3)

        assert [] == report.failures()
        assert len(facts(report, "pid")) >= 2
        assert report.seconds(1.0) < 1


def test_a_killed_worker_is_replaced():
    """SIGKILL costs that worker's requests in flight only, and a new worker serves within three seconds."""
    with plain(3) as server:
        server.serving(workers=3)
        siblings = server.workers()
        victim = siblings.pop()
        with load(server.port) as report:
            time.sleep(0.5)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            eventually(lambda: len(set(server.serving_workers()) - {victim}) == 3, seconds=3, what="three workers")
            time.sleep(0.5)
            (new,) = set(server.workers()) - set(siblings)

        assert str(new) in facts(report, "pid")
        assert len(report.failures()) <= 10
        # The process ends a moment later, and until then a client may connect to it.
        assert all(e.started - 0.2 < killed < e.started + e.seconds + 0.1 for e in report.failures())
        assert set(siblings) < set(server.workers())


@pytest.mark.parametrize("how", ["stopped", "blocked"])
def test_a_hung_worker_is_replaced(how):
    """A worker whose process or event loop is blocked is killed after its timeout. The other one keeps serving."""
    with plain(2, WORKER_TIMEOUT_SECONDS="2") as server:
        server.serving(workers=2)
        before = set(server.workers())
        began = time.monotonic()
        if how == "stopped":
            os.kill(min(before), signal.SIGSTOP)
        else:
            with load(
                server.port, kept=1, fresh=0, rate=1, seconds=0.1, request=lambda _: Request(target="/?block=60")
            ):
                time.sleep(0.2)
                eventually(lambda: set(server.workers()) - before, seconds=5, what="a new worker")
        eventually(lambda: set(server.workers()) - before, seconds=5, what="a new worker")
        eventually(lambda: len(server.workers()) == 2, seconds=1, what="two workers")

        assert time.monotonic() - began < 2 + 3
        assert len(set(server.workers()) & before) == 1


def test_workers_that_keep_crashing_are_started_at_growing_intervals():
    """The workers are killed as soon as they serve: in 5 s at most 6 are started."""
    with plain(1) as server:
        server.serving()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for pid in server.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

        assert server.output().count("Booting worker") <= 6


def test_sigttou_and_sigttin_change_the_number_of_workers():
    """More workers than WEB_CONCURRENCY and a second master (SIGUSR2) are refused, for the connection budget."""
    with plain(2) as server:
        server.serving(workers=2)
        server.send(signal.SIGTTOU)
        eventually(lambda: len(server.workers()) == 1, seconds=4, what="one worker")
        server.send(signal.SIGTTIN)
        eventually(lambda: len(server.workers()) == 2, seconds=4, what="two workers")
        server.send(signal.SIGTTIN)
        server.send(signal.SIGUSR2)
        eventually(lambda: "SIGUSR2 ignored" in server.output(), seconds=3, what="a refusal")
        assert "SIGTTIN ignored" in server.output()
        assert 2 == len(server.workers())
