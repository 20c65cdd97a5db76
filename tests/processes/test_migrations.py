import json
import time

import pytest

from app.settings import Settings
from tests.cluster import as_role, execute
from tests.migrations.alembic import HEAD, add_revision, copy_project, events, fetch, finish, start
from tests.migrations.locks import block
from tests.processes.load import Request, load
from tests.processes.server import SAMPLES_APP, Server

LOCK_SECONDS = Settings.model_fields["migration_lock_seconds"].default
SAMPLES = 20_000

MIXED = ("POST", "POST", "PATCH", "GET", "GET", "LIST", "LIST", "KEYED")


def mixed(number):
    """Of eight requests three create a sample, one changes a sample, and four read."""
    kind = MIXED[number % len(MIXED)]
    headers = (("Content-Type", "application/json"),)
    sample_id = 1 + number * 7919 % SAMPLES
    body = json.dumps({"name": f"Request {number}", "amount": number % 100}).encode()
    if kind == "POST":
        return Request(method="POST", target="/samples", headers=headers, body=body)
    if kind == "KEYED":
        return Request(
            method="POST", target="/samples", headers=(*headers, ("Idempotency-Key", f"key-{number}")), body=body
        )
    if kind == "PATCH":
        return Request(method="PATCH", target=f"/samples/{sample_id}", headers=headers, body=b'{"amount": 5.5}')
    return Request(target=f"/samples/{sample_id}" if kind == "GET" else "/samples")


def test_a_migration_under_load_fails_no_request(database_url, tmp_path):
    """A column and an index are added and removed under 200 requests a second, while a reader holds a lock.

    No request fails, none waits longer than the lock timeout plus its own time,
    and every acknowledged write is stored.
    """
    owner = as_role(database_url, "items_owner")
    execute(database_url, f"INSERT INTO samples (name) SELECT 'Kettle ' || n FROM generate_series(1, {SAMPLES}) AS n")
    revisions = copy_project(tmp_path)
    add_revision(
        revisions,
        "9998",
        revises=HEAD,
        upgrade="""op.execute("ALTER TABLE samples ADD COLUMN colour text DEFAULT 'red' NOT NULL")""",
        downgrade="""op.execute("ALTER TABLE samples DROP COLUMN colour")""",
    )
    index = '"ix_samples_amount", "samples"'
    add_revision(
        revisions,
        "9999",
        revises="9998",
        upgrade=f'create_index_concurrently({index}, ["amount"])',
        downgrade=f"drop_index_concurrently({index})",
    )
    environment = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": "2", "RATE_LIMIT_ENABLED": "false"}

    logs = ""
    with Server(app=SAMPLES_APP, environment=environment) as server:
        server.serving(workers=2)
        with load(server.port, rate=200, kept=20, fresh=4, request=mixed) as report:
            time.sleep(1)
            for command in (("upgrade", "head"), ("downgrade", HEAD), ("upgrade", "head")):
                migrating = start(owner, *command, folder=revisions)
                block(database_url, 1.5)
                done = finish(migrating)
                assert 0 == done.returncode, done.stderr
                logs += done.stderr
            time.sleep(1)

    assert "migration_blocked" in logs, "no lock blocked the migration"
    assert [] == report.failures(), report
    assert len(report.results) > 1000, report
    assert report.seconds(1.0) < LOCK_SECONDS + 1, report.seconds(1.0)
    made = {
        json.loads(result.answer.body)["id"]: json.loads(result.request.body)["name"]
        for result in report.results
        if result.request.method == "POST" and result.answer
    }
    assert len(made) > 300
    stored = dict(fetch(database_url, "SELECT id, name FROM samples WHERE name LIKE 'Request %'"))
    assert made.items() <= stored.items()
    assert [(True,)] == fetch(
        database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_samples_amount')"
    )


@pytest.mark.slow
def test_a_migration_behind_an_idle_transaction_fails_no_request(database_url, tmp_path):
    """A transaction stays open for 15 seconds. All settings have their defaults, and 60 requests come a second.

    No request fails, the slow ones are few, and the migration names the transaction.
    """
    execute(database_url, f"INSERT INTO samples (name) SELECT 'Kettle ' || n FROM generate_series(1, {SAMPLES}) AS n")
    revisions = copy_project(tmp_path)
    add_revision(revisions, "9999", revises=HEAD, upgrade='op.execute("ALTER TABLE samples ADD COLUMN colour text")')
    environment = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": "2", "RATE_LIMIT_ENABLED": "false"}

    with Server(app=SAMPLES_APP, environment=environment) as server:
        server.serving(workers=2)
        with load(server.port, rate=60, kept=100, request=mixed) as report:
            migrating = start(as_role(database_url, "items_owner"), "upgrade", "head", folder=revisions)
            block(database_url, 15)
            done = finish(migrating)

    assert 0 == done.returncode, done.stderr
    blocked = [event for event in events(done.stderr) if event["event"] == "migration_blocked"]
    assert len(blocked) >= 3
    assert "(report), idle in transaction, " in blocked[0]["blocked_by"]
    assert "query: SELECT " in blocked[0]["blocked_by"]
    assert [] == report.failures(), report
    # 0.3 s on a quiet machine.
    assert report.seconds(0.99) < 0.7, report.seconds(0.99)


def test_a_changed_column_type_fails_no_request(database_url):
    """Prepared statements that a schema change makes invalid are prepared again: no answer is a 5xx."""
    owner = as_role(database_url, "items_owner")
    environment = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": "2", "RATE_LIMIT_ENABLED": "false"}
    execute(database_url, "INSERT INTO samples (name) SELECT 'Kettle ' || n FROM generate_series(1, 200) AS n")

    with Server(app=SAMPLES_APP, environment=environment) as server:
        server.serving(workers=2)
        with load(
            server.port, rate=100, kept=10, request=lambda n: Request(target=f"/samples/{1 + n % 200}")
        ) as report:
            for kind in ("varchar(10000)", "text", "varchar(12000)", "text"):
                time.sleep(0.7)
                execute(owner, f"ALTER TABLE samples ALTER COLUMN description TYPE {kind}")
            time.sleep(0.7)

    assert [] == report.failures(), report
    assert {200} == set(report.statuses)
