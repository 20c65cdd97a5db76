import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes.load import Report, Request, load
from tests.processes.server import PLAIN, ROOT, Server, eventually


def plain(workers: int, **settings: str) -> Server:
    """A server of the application that needs no database."""
    return Server(app=PLAIN, environment={"WEB_CONCURRENCY": str(workers), **settings})


def facts(report: Report, name: str) -> set[str]:
    """The different values that the answers had for one line of their body."""
    lines = (line for e in report.exchanges if e.answer for line in e.answer.body.decode().splitlines())
    return {line.partition("=")[2] for line in lines if line.startswith(f"{name}=")}


@contextlib.contextmanager
def most_workers(server: Server) -> Iterator[list[int]]:
    """How many workers lived at a time, looked at often while the block runs."""
    counts: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            counts.append(len(server.workers()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield counts
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_reload_loses_no_request(workers):
    """Five reloads under 300 requests a second, on kept and on new connections: every one is answered."""
    with plain(workers) as server:
        server.serving(workers=workers)
        with load(server.port) as report, most_workers(server) as counts:
            for _ in range(5):
                server.reload()
                time.sleep(0.2)

        assert [] == report.failures()
        assert len(report.exchanges) > 300
        assert len(facts(report, "pid")) > 5 * workers / 2
        assert max(counts) <= workers + 1
        assert facts(report, "slot") <= {str(slot) for slot in range(workers + 1)}
        assert min(counts) >= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_recycling_loses_no_request(workers):
    """A worker that has answered MAX_REQUESTS serves until its replacement does, also when it is the only one."""
    with plain(workers, MAX_REQUESTS="150", MAX_REQUESTS_JITTER="50") as server:
        server.serving(workers=workers)
        with load(server.port) as report, most_workers(server) as counts:
            time.sleep(4)

        assert [] == report.failures()
        assert len(facts(report, "pid")) >= workers + 2
        assert max(counts) <= workers + 1


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


@pytest.mark.parametrize("how", ["reload", "recycling"])
def test_a_new_worker_serves_before_an_old_one_leaves(how):
    """Even the only worker: while its replacement takes its time to start, requests do not wait for it."""
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
        # The process takes a moment to die, and a client may still connect to it.
        assert all(e.started - 0.2 < killed < e.started + e.seconds + 0.1 for e in report.failures())
        assert set(siblings) < set(server.workers())


@pytest.mark.parametrize("how", ["stopped", "blocked"])
def test_a_hung_worker_is_replaced(how):
    """A worker whose process or loop stands still is killed when its timeout has passed; the other serves on."""
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


@pytest.mark.parametrize("fault", ["raise", "hang"])
def test_a_reload_that_cannot_start_changes_nothing(tmp_path, fault):
    """The old workers serve on, new ones are tried at growing intervals, and the next reload is free of the fault."""
    file = tmp_path / "fault"
    with plain(2, TEST_FAULT_FILE=str(file), WORKER_TIMEOUT_SECONDS="2") as server:
        server.serving(workers=2)
        old = set(server.workers())
        with load(server.port) as report:
            file.write_text(fault)
            server.send(signal.SIGHUP)
            time.sleep(4.5)
            assert old < set(server.workers()) or old == set(server.workers())
            tries = server.output().count("Booting worker") - 2
            file.write_text("")
            server.reload(seconds=6)

        assert [] == report.failures()
        assert 1 <= tries <= 6
        assert "ended before it served" in server.output()


def test_one_failing_start_leaves_the_others_alone(tmp_path):
    """At the first start one worker fails and its sibling does not: the service comes up whole."""
    file = tmp_path / "fault"
    file.write_text("raise once")
    with plain(2, TEST_FAULT_FILE=str(file)) as server:
        server.serving(workers=2)
        assert "This lifespan raises once." in server.output()


def test_code_that_cannot_be_imported_ends_the_first_start():
    """With no worker that ever served there is nothing to protect: the server ends with 3 and says why."""
    with Server(app="tests.processes.nothing:app", environment={"WEB_CONCURRENCY": "2"}) as server:
        assert 3 == server.wait()
        assert "No module named 'tests.processes.nothing'" in server.output()
        assert "No worker could start" in server.output()


def test_a_lifespan_that_raises_ends_the_first_start(tmp_path):
    """So the orchestrator sees the failure, and starts again at its own pace."""
    file = tmp_path / "fault"
    file.write_text("raise")
    with plain(2, TEST_FAULT_FILE=str(file)) as server:
        assert 3 == server.wait()
        assert "This lifespan raises." in server.output()


def test_a_crash_loop_is_slow(tmp_path):
    """Workers that die right after they began to serve are started at growing intervals."""
    with plain(1) as server:
        server.serving()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for pid in server.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

        assert server.output().count("Booting worker") <= 6


def in_folder(folder: Path) -> Server:
    """A server that reads its settings from a file `.env` in the folder."""
    return Server(
        app=PLAIN,
        arguments=("--config", str(ROOT / "gunicorn.conf.py")),
        environment={"PYTHONPATH": str(ROOT)},
        folder=folder,
    )


def test_a_reload_reads_the_settings_anew(tmp_path):
    """A setting that cannot be read is refused and changes nothing; one that can is taken."""
    file = tmp_path / ".env"
    file.write_text("WEB_CONCURRENCY=1\n")
    with in_folder(tmp_path) as server:
        server.serving()
        old = server.workers()
        file.write_text("WEB_CONCURRENCY=2\nKEEP_ALIVE_SECONDS=soon\n")
        server.send(signal.SIGHUP)
        eventually(lambda: "Reload refused" in server.output(), seconds=3, what="a refusal")
        time.sleep(0.5)
        assert old == server.workers()
        assert "KEEP_ALIVE_SECONDS" in server.output()

        file.write_text("WEB_CONCURRENCY=2\n")
        server.send(signal.SIGHUP)
        eventually(
            lambda: len(server.workers()) == 2 and not set(old) & set(server.workers()),
            seconds=5,
            what="two new workers",
        )


def test_a_reload_cannot_change_the_address(tmp_path):
    """Another port is refused as a whole: half of a change would be worse than none."""
    file = tmp_path / ".env"
    file.write_text("WEB_CONCURRENCY=1\n")
    with in_folder(tmp_path) as server:
        server.serving()
        old = server.workers()
        file.write_text("WEB_CONCURRENCY=1\nOPS_PORT=9\n")
        server.send(signal.SIGHUP)
        eventually(lambda: "change with a restart only" in server.output(), seconds=3, what="a refusal")
        assert old == server.workers()


@pytest.mark.parametrize(("name", "value"), [("KEEP_ALIVE_SECONDS", "soon"), ("DATABASE_URL", "mysql://u:hunter2@h/d")])
def test_a_malformed_setting_ends_the_start_with_one_sentence(name, value):
    """It names the variable, without a traceback and without the value."""
    with plain(1, **{name: value}) as server:
        assert 1 == server.wait()
        assert name in server.output()
        assert 1 == len(server.output().strip().splitlines())
        assert "hunter2" not in server.output()


def test_workers_do_not_outlive_a_killed_master():
    """Left alone they would keep the port, and no new master could listen."""
    with plain(2) as server:
        server.serving(workers=2)
        workers = [psutil.Process(pid) for pid in server.workers()]
        server.send(signal.SIGKILL)
        gone, _ = psutil.wait_procs(workers, timeout=5)
        assert 2 == len(gone)


def test_the_number_of_workers_can_be_lowered_and_raised_again():
    """SIGTTOU and SIGTTIN work within the connection budget; SIGUSR2 and more than that are refused."""
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
