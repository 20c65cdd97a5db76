"""What a reload changes, and what it does not."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.processes.load import load
from tests.processes.plain_server import facts, plain
from tests.processes.raw import AMBIGUOUS, send_and_read, statuses
from tests.processes.scrape import fetch
from tests.processes.server import PLAIN, Server, eventually, service
from tests.processes.watch import polling


@pytest.mark.parametrize("workers", [1, 3])
def test_a_reload_loses_no_request(workers):
    """Every request is answered during five reloads under 300 requests a second, on kept and on new connections."""
    with plain(workers) as server:
        server.serving(workers=workers)
        with load(server.port) as report, polling(lambda: len(server.workers()), every=0.02) as counts:
            for _ in range(5):
                server.reload()
                time.sleep(0.2)

        assert [] == report.failures()
        assert len(report.results) > 300
        assert len(facts(report, "pid")) > 5 * workers / 2
        assert max(counts) <= workers + 1
        assert facts(report, "slot") <= {str(slot) for slot in range(workers + 1)}
        assert min(counts) >= workers


@pytest.mark.parametrize("fault", ["raise", "hang"])
def test_old_workers_keep_serving_if_new_ones_cannot_start(tmp_path, fault):
    """New workers are started at growing intervals, and the next reload without the fault succeeds."""
    file = tmp_path / "fault"
    with plain(2, TEST_FAULT_FILE=str(file), WORKER_TIMEOUT_SECONDS="2") as server:
        server.serving(workers=2)
        old = set(server.workers())
        with load(server.port) as report:
            file.write_text(fault)
            server.send(signal.SIGHUP)
            time.sleep(4.5)
            assert old < set(server.workers()) or old == set(server.workers())
            starts = server.output().count("Booting worker") - 2
            file.write_text("")
            server.reload(seconds=6)

        assert [] == report.failures()
        assert 1 <= starts <= 6
        assert "ended before it served" in server.output()


def in_folder(folder: Path) -> Server:
    """A server that reads its settings from the file `.env` in the folder."""
    return Server(
        app=PLAIN,
        arguments=("--config", str(ROOT / "gunicorn.conf.py")),
        environment={"PYTHONPATH": str(ROOT)},
        folder=folder,
    )


def test_a_reload_reads_the_settings_again(tmp_path):
    """A valid setting is applied. With an invalid one the reload is refused, and nothing changes."""
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


def test_a_worker_that_ends_after_a_refused_reload_is_replaced(tmp_path):
    """Gunicorn forgets the application when it reads the configuration. The old one stays."""
    file = tmp_path / ".env"
    file.write_text("WEB_CONCURRENCY=1\n")
    with Server(
        arguments=("--config", str(ROOT / "gunicorn.conf.py")), environment={"PYTHONPATH": str(ROOT)}, folder=tmp_path
    ) as server:
        (old,) = server.serving().workers()
        file.write_text("KEEP_ALIVE_SECONDS=soon\n")
        server.send(signal.SIGHUP)
        eventually(lambda: "Reload refused" in server.output(), seconds=10, what="a refusal")
        file.write_text("WEB_CONCURRENCY=1\n")  # a worker reads it, too
        os.kill(old, signal.SIGKILL)
        eventually(lambda: set(server.workers()) - {old}, seconds=10, what="a new worker")
        server.serving()
        assert 200 == fetch(server.port, "/")[0]


def test_a_reload_that_changes_the_address_is_refused(tmp_path):
    """The workers stay as they are, and the log says that the address changes with a restart only."""
    file = tmp_path / ".env"
    file.write_text("WEB_CONCURRENCY=1\n")
    with in_folder(tmp_path) as server:
        server.serving()
        old = server.workers()
        file.write_text("WEB_CONCURRENCY=1\nOPS_PORT=9\n")
        server.send(signal.SIGHUP)
        eventually(lambda: "change with a restart only" in server.output(), seconds=3, what="a refusal")
        assert old == server.workers()


def test_answers_of_the_server_and_log_lines_are_the_same_after_a_reload():
    """The reload replaces all modules of the application, and not those of the server: lines keep their request id."""
    with service("postgresql://nobody@127.0.0.1:1/none") as server:
        server.serving()
        before = send_and_read(server, AMBIGUOUS["user in Host"])
        server.reload()
        after = send_and_read(server, AMBIGUOUS["user in Host"])
        assert 503 == fetch(server.port, "/samples")[0]
        assert 0 == server.stop()
        records = [json.loads(line) for line in server.output().splitlines()]

    assert [400] == statuses(before) == statuses(after)
    assert b"malformed_request" in after
    assert [True] == ["request_id" in record for record in records if record["event"] == "request_failed"]


@pytest.mark.parametrize("to", ["{}/service", "service"])
def test_a_server_in_another_folder_reads_its_settings_there(tmp_path, to):
    """With `--chdir` the master, the workers and each reload read the same files, also after a refused reload."""
    folder = tmp_path / "service"
    folder.mkdir()
    settings = "WEB_CONCURRENCY=2\nDATABASE_URL_FILE=secret\nALLOWED_HOSTS=service.example\n"
    (folder / ".env").write_text(settings)
    (folder / "secret").write_text("postgresql://nobody@127.0.0.1:1/nothing")
    arguments = ("--chdir", to.format(tmp_path), "-c", str(ROOT / "gunicorn.conf.py"))
    with Server(arguments=arguments, environment={"DATABASE_URL": ""}, folder=tmp_path) as server:
        server.serving(workers=2)
        assert 400 == fetch(server.port, "/")[0]

        (folder / ".env").write_text(settings + "KEEP_ALIVE_SECONDS=soon\n")
        server.send(signal.SIGHUP)
        eventually(lambda: "Reload refused" in server.output(), seconds=10, what="a refusal")
        (folder / ".env").write_text(settings)
        old = server.workers()
        os.kill(old[0], signal.SIGKILL)
        eventually(lambda: len(set(server.workers()) - {old[0]}) == 2, seconds=10, what="a new worker")
        server.serving(workers=2)
        assert {400} == {fetch(server.port, "/")[0] for _ in range(20)}

        server.reload()
        assert 400 == fetch(server.port, "/")[0]
        assert folder == Path(f"/proc/{server.workers()[0]}/cwd").readlink()
        assert 0 == server.stop()


def test_a_dot_env_file_in_the_folder_of_the_start_is_refused_beside_chdir(tmp_path):
    """Its settings would have no effect. `--check-config` says the same."""
    (tmp_path / ".env").write_text("AUTH_ISSUER=https://login.example\n")
    for more in ((), ("--check-config",)):
        arguments = ("--chdir", str(ROOT), "-c", str(ROOT / "gunicorn.conf.py"), *more)
        with Server(arguments=arguments, folder=tmp_path) as server:
            assert 1 == server.wait()
            (line,) = server.output().strip().splitlines()
            assert line.startswith(f"Error: With Gunicorn's option --chdir, {ROOT}/.env is read, and {tmp_path}/.env")
