"""What is known about a worker that hung or was killed."""

import json
import os
import signal
from typing import Any

from tests.processes.load import Request, load
from tests.processes.plain_server import plain
from tests.processes.scrape import fetch, scrape
from tests.processes.server import Server, eventually, service


def events(server: Server, name: str) -> list[dict[str, Any]]:
    """The log lines of this event."""
    lines = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def event(server: Server, name: str) -> dict[str, Any]:
    """The only log line of this event, once it is there."""
    (line,) = eventually(lambda: events(server, name), seconds=30, what=name)
    return line


def test_a_blocked_event_loop_leaves_its_stack():
    """One line names the slot, the process, the timeout and the place in the code, and guesses nothing."""
    with plain(2, WORKER_TIMEOUT_SECONDS="2") as server:
        server.serving(workers=2, seconds=60)
        before = set(server.workers())
        with load(server.port, kept=1, fresh=0, rate=1, seconds=0.1, request=lambda _: Request(target="/?block=60")):
            line = event(server, "worker_timed_out")

        assert line["pid"] in before
        assert line["slot"] in {"0", "1"}
        assert ("error", 2, "SIGABRT") == (line["level"], line["timeout_seconds"], line["signal"])
        assert "WORKER_TIMEOUT_SECONDS" in line["cause"]
        first, innermost = line["stack"].splitlines()[:2]
        assert first.startswith("Current thread ")
        assert innermost.endswith(" in __call__")
        assert "tests/processes/apps.py" in innermost
        assert "memory" not in server.output()


def test_a_stopped_worker_has_timed_out_and_leaves_no_stack():
    """It cannot run the handler of SIGABRT. The line does not say that memory was short."""
    with plain(2, WORKER_TIMEOUT_SECONDS="2") as server:
        server.serving(workers=2, seconds=60)
        (stopped, _) = server.workers()
        os.kill(stopped, signal.SIGSTOP)
        line = event(server, "worker_timed_out")

        assert (stopped, "SIGKILL", None) == (line["pid"], line["signal"], line["stack"])
        assert "memory" not in server.output()


def test_a_worker_that_another_process_kills_has_not_timed_out():
    """The line says that the master did not send the signal."""
    with plain(2) as server:
        server.serving(workers=2, seconds=60)
        (killed, _) = server.workers()
        os.kill(killed, signal.SIGKILL)
        line = event(server, "worker_died")

        assert (killed, "SIGKILL", None) == (line["pid"], line["signal"], line["exit_code"])
        assert line["cause"].startswith("The master did not send SIGKILL.")
        assert [] == events(server, "worker_timed_out")


def test_a_shutdown_and_a_reload_are_no_deaths():
    """Workers that their master has stopped leave no line, also while they start."""
    with plain(2, TEST_START_SECONDS="1") as server:
        server.serving(workers=2, seconds=60)
        server.reload()
        server.send(signal.SIGHUP)
        eventually(lambda: len(server.workers()) > 2, seconds=20, what="a worker that starts")
        assert 0 == server.stop()

        assert [] == events(server, "worker_died")


def ages(server: Server) -> dict[str, float]:
    """The age of each worker's heartbeat, by slot."""
    return {
        dict(labels)["worker"]: value
        for (name, labels), value in scrape(server.port).items()
        if name == "worker_heartbeat_age_seconds"
    }


def test_the_age_of_a_heartbeat_grows_while_a_worker_hangs(database_url):
    """Another worker shows it. The request lines name the slot and the process, so the hung one can be found."""
    with service(database_url, workers=2) as server:
        server.serving(workers=2, seconds=60)
        eventually(lambda: len(ages(server)) == 2, seconds=60, what="two heartbeats")
        (hung, other) = server.workers()
        os.kill(hung, signal.SIGSTOP)
        old = eventually(
            lambda: [slot for slot, age in ages(server).items() if age > 5], seconds=60, what="an old heartbeat"
        )
        assert 200 == fetch(server.port, "/samples")[0]
        served = eventually(lambda: events(server, "request_served"), seconds=60, what="a request line")[-1]
        os.kill(hung, signal.SIGCONT)
        eventually(lambda: max(ages(server).values()) < 5, seconds=60, what="a new heartbeat")

        assert other == served["pid"]
        assert [served["slot"]] != old
        assert [] == events(server, "worker_timed_out")
