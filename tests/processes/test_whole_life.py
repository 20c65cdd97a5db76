import json
import os
import signal
import time

import pytest

from tests.cluster import execute
from tests.processes.load import Request, load
from tests.processes.scrape import fetch
from tests.processes.server import SAMPLES_APP, Server, eventually

SECRETS = {name: f"planted{name}" for name in ("dsn", "bearer", "cookie", "body", "query", "key", "field")}

HEADERS = (
    ("Authorization", f"Bearer {SECRETS['bearer']}"),
    ("Cookie", f"session={SECRETS['cookie']}"),
    ("Content-Type", "application/json"),
)


def post(body: str, *headers: tuple[str, str]) -> Request:
    """A creation with secrets that must not be logged."""
    return Request(method="POST", target="/samples", headers=(*HEADERS, *headers), body=body.encode())


REQUESTS = [
    post(f'{{"name": "{SECRETS["body"]}"}}'),  # PostgreSQL refuses the row, and repeats it in its message
    post('{"name": "well"}', ("Idempotency-Key", SECRETS["key"])),
    post('{"name": "another"}', ("Idempotency-Key", SECRETS["key"])),
    post(f'{{"name": "{SECRETS["body"]}'),
    post(f'{{"name": 7, "description": "{SECRETS["body"]}", "{SECRETS["field"]}": 1}}'),
    Request(target=f"/samples?q={SECRETS['query']}&per_page={SECRETS['query']}", headers=HEADERS),
    Request(target=f"/samples?q={SECRETS['query']}", headers=HEADERS),
    Request(target="/nothing", headers=HEADERS),
    Request(method="DELETE", target="/samples", headers=HEADERS),
    Request(target="/samples/1", headers=(*HEADERS, ("If-None-Match", SECRETS["field"]))),
    Request(target=f"/\x01{SECRETS['query']}"),  # the parser refuses it
]


def test_every_log_line_is_json_and_has_no_secret(own_cluster):
    """This holds from the start to the end: load, errors, a reload, a killed worker, a database that restarts."""
    # An internal error: no SQL of the service divides by zero. PostgreSQL shows the row in the DETAIL.
    execute(
        own_cluster.url,
        "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE division_by_zero USING DETAIL = 'Failing row contains (' || NEW.name || ').'; END $$",
    )
    execute(
        own_cluster.url,
        "CREATE TRIGGER planted BEFORE INSERT ON samples FOR EACH ROW "
        f"WHEN (NEW.name = '{SECRETS['body']}') EXECUTE FUNCTION planted()",
    )
    url = own_cluster.url.replace("postgres@", f"postgres:{SECRETS['dsn']}@", 1)
    with Server(
        app=SAMPLES_APP, environment={"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "LOG_LEVEL": "debug"}
    ) as server:
        server.serving(workers=2)
        with load(server.port, rate=100, request=lambda n: REQUESTS[n % len(REQUESTS)]) as report:
            time.sleep(1)
            server.reload()
            os.kill(server.workers()[0], signal.SIGKILL)
            eventually(lambda: len(server.serving_workers()) == 2, seconds=5, what="two workers")
            own_cluster.stop("immediate")
            eventually(lambda: fetch(server.port, "/health/ready")[0] == 503, seconds=5, what="not ready")
            time.sleep(0.5)
            own_cluster.start()
            eventually(lambda: fetch(server.port, "/health/ready")[0] == 200, seconds=5, what="ready again")
        assert 0 == server.stop()
        lines = server.output().splitlines()

    assert {201, 400, 404, 405, 422, 500, 503} <= set(report.statuses)
    records = [json.loads(line) for line in lines]
    assert len(records) > 100
    for record in records:
        assert {"event", "level", "timestamp"} <= record.keys()
        assert record["level"] in {"debug", "info", "warning", "error", "critical"}
    events = {record["event"] for record in records}
    assert {
        "connection_budget_checked",
        "readiness_changed",
        "request_crashed",
        "request_failed",
        "request_served",
        "worker_started",
        "worker_stopped",
    } <= events
    assert {} == {
        name: line for name, secret in SECRETS.items() for line in lines if secret in line and "/nothing" not in line
    }


@pytest.mark.parametrize("level", ["info", "warning"])
def test_probes_write_no_log_line_at_info(database_url, level):
    """At info every other request has its line. At warning a service without failures writes nothing."""
    with Server(
        app=SAMPLES_APP, environment={"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1", "LOG_LEVEL": level}
    ) as server:
        server.serving()
        for path in ("/health", "/health/ready", "/metrics", "/samples"):
            assert 200 == fetch(server.port, path)[0]
        assert 0 == server.stop()
        records = [json.loads(line) for line in server.output().splitlines()]

    if level == "warning":
        assert [] == records
    else:
        assert ["/samples"] == [record["path"] for record in records if record["event"] == "request_served"]
