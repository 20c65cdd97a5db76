import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.processes.plain_server import plain
from tests.processes.scrape import scrape, total
from tests.processes.server import Server, eventually

SECRET = "hunter2"

MISTAKES = {
    "budget": {"DATABASE_CONNECTIONS": "4", "WEB_CONCURRENCY": "4"},
    "connections": {"DATABASE_CONNECTIONS": "none"},
    "url": {"DATABASE_URL": f"mysql://user:{SECRET}@host/name"},
    "url file": {"DATABASE_URL_FILE": f"/nowhere/{SECRET}", "DATABASE_URL": ""},
    "both urls": {"DATABASE_URL_FILE": "/dev/null"},
    "limit": {"RATE_LIMIT_READ": "many"},
    "storage scheme": {"RATE_LIMIT_STORAGE_URI": f"memcached://:{SECRET}@host"},
    "storage port": {"RATE_LIMIT_STORAGE_URI": f"redis://:{SECRET}@host:port/0"},
    "level": {"LOG_LEVEL": "loud"},
    "format": {"LOG_FORMAT": "xml"},
    "body": {"MAX_BODY_BYTES": "0"},
    "ops port": {"OPS_PORT": "70000"},
    "seconds": {"GRACEFUL_SECONDS": "-1"},
    "pooler": {"DATABASE_POOLER": "pgpool"},
    "enabled": {"RATE_LIMIT_ENABLED": "perhaps"},
}
"""Settings that the service cannot start with. The message must name the first variable of each."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_setting_ends_the_start_with_one_sentence(mistake):
    """It names the variable. There is no traceback, no second line and no secret, and the exit code is not 0."""
    settings = MISTAKES[mistake]
    with Server(environment={"WEB_CONCURRENCY": "1", **settings}) as server:
        assert server.wait() in {1, 3}
        output = server.output()

    assert next(iter(settings)) in output
    assert 1 == len(output.strip().splitlines())
    assert "Traceback" not in output
    assert SECRET not in output


REFUSED = {
    "worker class": (("-k", "uvicorn.workers.UvicornWorker"), {}, "--worker-class"),
    "preload": (("--preload",), {}, "--preload"),
    "workers": (("-w", "8"), {}, "WEB_CONCURRENCY"),
    "threads": ((), {"GUNICORN_CMD_ARGS": "--threads=4"}, "--threads"),
    "bind": (("--bind", "127.0.0.1:1"), {}, "HOST and PORT"),
    "no database": ((), {"DATABASE_URL": "", "HOST": "0.0.0.0"}, "DATABASE_URL is not set"),
    "budget": ((), {"DATABASE_CONNECTIONS": "1"}, "DATABASE_CONNECTIONS"),
    "replicas alone": ((), {"DATABASE_REPLICA_URL": "postgresql://a@b/c", "DATABASE_URL": ""}, "needs DATABASE_URL"),
    "lag alone": ((), {"DATABASE_REPLICA_LAG_SECONDS": "2"}, "does nothing without DATABASE_REPLICA_URL"),
}
"""Options of Gunicorn and settings that the service does not start with, and what the message must name."""


@pytest.mark.parametrize(("options", "settings", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_check_config_refuses_what_a_start_refuses(options, settings, named):
    """Both end before a worker is started, with the same sentence."""
    outputs = []
    for arguments in (options, (*options, "--check-config")):
        with Server(environment={"WEB_CONCURRENCY": "2", **settings}, arguments=arguments) as server:
            assert 1 == server.wait()
            outputs.append(server.output())

    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("Error: ")
    assert named in outputs[0]
    assert 1 == len(outputs[0].strip().splitlines())


def test_a_metrics_directory_in_use_ends_the_start(tmp_path):
    """A second server with the same METRICS_DIRECTORY is refused, and the first one keeps its files."""
    with plain(1, METRICS_DIRECTORY=str(tmp_path)) as server:
        server.serving()
        files = sorted(tmp_path.iterdir())
        with plain(1, METRICS_DIRECTORY=str(tmp_path)) as second:
            assert 1 == second.wait()
            assert f"Error: METRICS_DIRECTORY {tmp_path} is used by another running server" in second.output()
        assert files == sorted(tmp_path.iterdir())


def test_an_unusable_metrics_directory_ends_the_start():
    """The sentence names the setting. No worker starts."""
    with Server(environment={"METRICS_DIRECTORY": "/proc/nowhere", "WEB_CONCURRENCY": "1"}) as server:
        assert 1 == server.wait()
        (line,) = [line for line in server.output().splitlines() if "Starting gunicorn" not in line]
        assert line.startswith("Error: METRICS_DIRECTORY /proc/nowhere cannot be used (")


def test_two_ports_must_differ():
    """The start is refused if OPS_PORT equals PORT."""
    with Server(environment={"OPS_PORT": "8123", "PORT": "8123"}) as server:
        assert 1 == server.wait()
        assert (
            "Error: OPS_PORT and PORT must differ: write another port for OPS_PORT, or leave it out."
            == server.output().strip()
        )


def test_a_port_in_use_ends_the_start():
    """The server ends at once with one sentence, which names the setting and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("PORT", "OPS_PORT"):
            with Server(environment={name: str(port), "WEB_CONCURRENCY": "1"}) as server:
                assert 1 == server.wait(seconds=15)
                (line,) = [line for line in server.output().splitlines() if "Starting gunicorn" not in line]
                assert line.startswith(f"Error: {name} {port} of HOST 127.0.0.1 is used by another program: stop that")


def test_a_database_that_cannot_be_reached_is_one_warning():
    """Without any request one worker says it, with the cause and what to check. All workers serve."""
    with Server(environment={"WEB_CONCURRENCY": "2"}) as server:
        server.serving(workers=2)
        lines = eventually(lambda: warnings(server), seconds=10, what="a warning")
        time.sleep(1)
        assert lines == warnings(server)

    (line,) = lines
    assert ("readiness_changed", "database_unavailable") == (line["event"], line["database"])
    assert "Connection refused" in line["cause"]
    assert line["advice"].startswith("Check DATABASE_URL, that PostgreSQL runs")


def warnings(server: Server) -> list[dict[str, Any]]:
    """The lines above the level info."""
    lines = [json.loads(line) for line in server.output().splitlines()]
    return [line for line in lines if line["level"] != "info"]


@pytest.mark.parametrize(("name", "value"), [("KEEP_ALIVE_SECONDS", "soon"), ("DATABASE_URL", "mysql://u:hunter2@h/d")])
def test_a_malformed_setting_ends_the_start_with_one_sentence(name, value):
    """It names the variable, without a traceback and without the value."""
    with plain(1, **{name: value}) as server:
        assert 1 == server.wait()
        assert name in server.output()
        assert 1 == len(server.output().strip().splitlines())
        assert "hunter2" not in server.output()


def test_a_worker_that_fails_to_start_is_replaced(tmp_path):
    """At the first start one worker fails and the other one serves. In the end both serve."""
    file = tmp_path / "fault"
    file.write_text("raise once")
    with plain(2, TEST_FAULT_FILE=str(file)) as server:
        server.serving(workers=2)
        assert "This lifespan raises once." in server.output()


def test_an_import_error_ends_the_first_start():
    """No worker has served yet, so the server ends with code 3 and says why."""
    with Server(app="tests.processes.nothing:app", environment={"WEB_CONCURRENCY": "2"}) as server:
        assert 3 == server.wait()
        assert "No module named 'tests.processes.nothing'" in server.output()
        assert "No worker could start" in server.output()


def test_an_exception_in_the_lifespan_ends_the_first_start(tmp_path):
    """The server ends with code 3, so the orchestrator sees the failure."""
    file = tmp_path / "fault"
    file.write_text("raise")
    with plain(2, TEST_FAULT_FILE=str(file)) as server:
        assert 3 == server.wait()
        assert "This lifespan raises." in server.output()


def test_the_first_requests_are_counted_exactly():
    """While workers still start, requests of one client are counted by all of them together, and in the metrics."""
    with Server(environment={"WEB_CONCURRENCY": "3", "RATE_LIMIT_READ": "40/hour"}) as server:
        server.serving(workers=1)
        url = f"http://127.0.0.1:{server.port}"
        statuses = [httpx.get(f"{url}/").status_code for _ in range(30)]
        server.serving(workers=3)
        statuses += [httpx.get(f"{url}/").status_code for _ in range(30)]
        metrics = scrape(server.port)
        assert "rate_limit_counting_failed" not in server.output()

    assert [200] * 40 + [429] * 20 == statuses
    counted = [total(metrics, "http_requests_total", {"handler": "/", "status": str(code)}) for code in (200, 429)]
    assert [40, 20] == counted
