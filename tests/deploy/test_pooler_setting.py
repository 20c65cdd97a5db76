"""Every value of DATABASE_POOLER, right or wrong, before PgBouncer in transaction mode: no row is lost."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from app import logs
from app.database.peer import NO_PREPARED_STATEMENTS, PARAMETERS_REFUSED, POOLER_NOT_DECLARED
from app.settings import Settings
from tests.deploy.poolers import pooler
from tests.paths import ROOT
from tests.sample.app import create_app

ROWS = 500
"""Rows that are read; as many are deleted."""

REFUSED = {"database_misconfigured": ROWS}
SERVED = {"ok": ROWS}
VALUES = {
    "1.18": {"none": REFUSED, "pgbouncer": SERVED, "pgbouncer-prepared": REFUSED},
    "1.24": {"none": REFUSED, "pgbouncer": SERVED, "pgbouncer-prepared": SERVED},
}
IGNORE = {"ignore_startup_parameters": "statement_timeout,idle_in_transaction_session_timeout,jit,"
          "default_transaction_isolation,client_connection_check_interval"}  # fmt: skip


@pytest.fixture
async def rows(sql):
    """The rows that are read, and those that are deleted."""
    await sql.execute(f"INSERT INTO samples (name) SELECT 'read' FROM generate_series(1, {ROWS})")
    await sql.execute(f"INSERT INTO samples (name) SELECT 'deleted' FROM generate_series(1, {ROWS})")


@pytest.fixture
def folder():
    """A folder that PgBouncer's user can read."""
    made = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    yield made
    shutil.rmtree(made)


async def assert_no_row_is_lost(running, database_url, sql, expected):
    """Two processes read and two delete, once as the service is, and once without its check of the pooler."""
    found = {}
    with running as pooled:
        for value in expected:
            for check in ("checked", "unchecked"):
                found[value, check] = read_and_delete(pooled.url(database_url), value, check)
                assert ROWS == await sql.fetchval("SELECT count(*) FROM samples WHERE name = 'read'"), (value, check)
                deleted = found[value, check]["delete"].get("ok", [])
                assert [] == await sql.fetch("SELECT id FROM samples WHERE id = ANY($1)", deleted), (value, check)
                assert "another sample" not in found[value, check]["get"] | found[value, check]["delete"]
                await sql.execute(
                    "INSERT INTO samples (id, name) OVERRIDING SYSTEM VALUE "
                    "SELECT id, 'deleted' FROM generate_series($1::bigint, $2) AS id ON CONFLICT DO NOTHING",
                    ROWS + 1,
                    2 * ROWS,
                )
    sys.stdout.write(summary(found))
    for value, outcomes in expected.items():
        for operation in ("get", "delete"):
            counts = {outcome: len(ids) for outcome, ids in found[value, "checked"][operation].items()}
            assert outcomes == counts, (value, operation)


def read_and_delete(url, value, check):
    """The ids by operation and outcome, of two processes for each operation, all at the same time."""
    halves = {"get": [(1, ROWS // 2), (ROWS // 2 + 1, ROWS)], "delete": []}
    halves["delete"] = [(first + ROWS, last + ROWS) for first, last in halves["get"]]
    clients = [
        (operation, subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.pooler_client", url, value, check, operation, *map(str, ids)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ))
        for operation, ranges in halves.items() for ids in ranges
    ]  # fmt: skip
    ended = [(operation, *client.communicate(timeout=120)) for operation, client in clients]
    found: dict[str, dict[str, list[int]]] = {"get": {}, "delete": {}}
    for operation, printed, complaint in ended:
        assert printed, complaint
        for outcome, ids in json.loads(printed.splitlines()[-1]).items():
            found[operation].setdefault(outcome, []).extend(ids)
    return found


def summary(found):
    """How often each outcome came, to be read with `pytest -s`."""
    return "\n".join(
        f"{value} {check}: "
        + ", ".join(f"{operation} {outcome} {len(ids)}" for operation in got for outcome, ids in got[operation].items())
        for (value, check), got in found.items()
    )


@pytest.mark.needs("pgbouncer")
@pytest.mark.usefixtures("rows")
async def test_no_row_is_lost_behind_an_older_pgbouncer(cluster, folder, database_url, sql):
    """It keeps no prepared statements: only `pgbouncer` is right, and all else is refused."""
    await assert_no_row_is_lost(pooler(None, cluster, folder, "1.18", IGNORE), database_url, sql, VALUES["1.18"])


@pytest.mark.usefixtures("rows")
async def test_no_row_is_lost_behind_a_newer_pgbouncer(images, cluster, folder, database_url, sql):
    """It keeps prepared statements: both values are right, and none is refused."""
    await assert_no_row_is_lost(pooler(images, cluster, folder, "1.24", IGNORE), database_url, sql, VALUES["1.24"])


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize(
    ("value", "options", "sentence"),
    [
        ("none", {}, PARAMETERS_REFUSED),
        ("none", IGNORE, POOLER_NOT_DECLARED),
        ("none", IGNORE | {"pool_mode": "session"}, POOLER_NOT_DECLARED),
        ("pgbouncer-prepared", {}, NO_PREPARED_STATEMENTS),
    ],
)
async def test_a_wrong_setting_is_named(  # noqa: PLR0917  # by name
    cluster, folder, database_url, capfd, value, options, sentence
):
    """Requests are 503, the worker is not ready, and one event says what to write."""
    with pooler(None, cluster, folder, "1.18", options) as running:
        app = create_app(
            Settings.load(
                database_url=running.url(database_url),
                database_pooler=value,
                rate_limit_enabled=False,
                log_format="json",
                _env_file=None,
            )
        )
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client,
        ):
            answers = [await client.get("/samples"), await client.post("/samples", json={"name": "Kettle"})]
            ready = await client.get("/health/ready")

    assert [503, 503, 503] == [answer.status_code for answer in (*answers, ready)]
    assert {"database_misconfigured"} == {answer.json()["code"] for answer in answers}
    assert "database_misconfigured" in ready.text
    assert "DATABASE_POOLER" not in answers[0].text
    assert logs.flush()
    printed = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    events = [line for line in printed if line["event"] == "database_misconfigured"]
    assert [("error", sentence)] == [(event["level"], event["problem"]) for event in events]
    assert "write DATABASE_POOLER=pgbouncer" in sentence
