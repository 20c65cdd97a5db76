"""The code of one release runs on the schema of another release."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.migrations.alembic import HEAD, add_revision, copy_project, succeed
from tests.migrations.previous_code import previous_code
from tests.migrations.versions import REVISIONS, script
from tests.paths import ROOT

CONTRACT = (
    "routers/test_item.py",
    "routers/test_item_idempotency.py",
    "routers/test_item_pages.py",
    "routers/test_item_etags.py",
)
"""The tests of the HTTP contract, in tests/."""

EXPANSION = """op.execute("ALTER TABLE items ADD COLUMN colour text, ADD COLUMN stock int DEFAULT 0 NOT NULL")
op.execute("ALTER TABLE items ADD CONSTRAINT ck_items_stock_range CHECK (stock >= 0) NOT VALID")
op.execute("CREATE TABLE colours (name text CONSTRAINT pk_colours PRIMARY KEY)")"""
"""Changes that the next release may make while this release runs."""

CONTRACTION = 'op.execute("ALTER TABLE items DROP COLUMN description")'
"""A change that it must not make."""


def run_contract(code: Path, *, schema: Path) -> subprocess.CompletedProcess[str]:
    """Run the contract tests of one release on the schema of another release."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *(f"tests/{name}" for name in CONTRACT)],
        cwd=code, env=kept | {"SCHEMA_OF": str(schema)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_this_release_runs_on_the_next_schema(tmp_path):
    """The contract holds on a schema that the next release has expanded.

    An update changes the database first, while this release still serves.
    """
    next_release = copy_project(tmp_path)
    add_revision(next_release, "items_9999", revises=HEAD, upgrade=EXPANSION)

    done = run_contract(ROOT, schema=next_release)

    assert 0 == done.returncode, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 100


@pytest.mark.slow
def test_a_schema_without_a_column_of_this_release_fails_the_contract(tmp_path):
    """The contract fails on a schema that this release cannot run on."""
    next_release = copy_project(tmp_path)
    add_revision(next_release, "items_9999", revises=HEAD, upgrade=CONTRACTION)

    done = run_contract(ROOT, schema=next_release)

    assert 1 == done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.needs("git", "tar")
def test_the_previous_code_runs_on_this_schema(tmp_path):
    """Its own contract tests pass on this schema, unless a revision since then declares otherwise."""
    code = previous_code(ROOT, Path(script(HEAD).path).relative_to(ROOT))
    if code is None:
        return
    archive = subprocess.run(["git", "archive", "--format=tar", code], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=archive.stdout, check=True)
    texts = [path.read_text() for path in (tmp_path / "migrations" / "versions").glob("*.py")]
    known = {found[1] for text in texts if (found := re.search(r'^revision = "(\w+)"', text, re.MULTILINE))}
    since = [revision for revision in REVISIONS if revision not in known]
    declared = all(script(revision).module.runs_beside_previous_release for revision in since)

    done = run_contract(tmp_path, schema=ROOT)

    if declared and done.returncode:
        on_its_own = run_contract(tmp_path, schema=tmp_path)
        assert 0 == on_its_own.returncode, f"{code} fails on its own schema too: {on_its_own.stdout}"
    assert declared == (done.returncode == 0), f"{code} on the schema with {since}: {done.stdout}"


@pytest.mark.parametrize("revision", ["base", *REVISIONS[:-1]])
async def test_this_release_on_an_older_schema_is_not_ready(empty_database_url, revision):
    """It is alive and not ready, and each request is answered normally or with 503, never with 500."""
    succeed(empty_database_url, "upgrade", REVISIONS[0])
    succeed(empty_database_url, "downgrade" if revision == "base" else "upgrade", revision)
    app = create_app(Settings.load(database_url=empty_database_url, rate_limit_enabled=False, _env_file=None))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client,
    ):
        ready = await client.get("/health/ready")
        answers = [
            await client.get("/health"),
            await client.post("/items", json={"name": "Kettle"}),
            await client.post("/items", json={"name": "Kettle"}, headers={"Idempotency-Key": "one"}),
            *[
                await client.get("/items", params=query)
                for query in ({}, {"q": "kettle"}, {"q": "k"}, {"is_active": "true"})
            ],
            await client.get("/items/1"),
            await client.put("/items/1", json={"name": "Pan"}),
            await client.patch("/items/1", json={"price": 1}),
            await client.delete("/items/1"),
        ]

    assert 503 == ready.status_code
    assert "behind" == ready.json()["checks"]["schema"]
    assert 200 == answers[0].status_code
    assert {answer.status_code for answer in answers[1:]} <= {200, 201, 204, 503}
    codes = [answer.json()["code"] for answer in answers if answer.status_code == 503]
    assert set(codes) <= {"schema_outdated"}
    if revision == "base":
        assert len(answers) - 1 == len(codes)
