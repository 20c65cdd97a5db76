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


def git(*arguments: str) -> bytes:
    """The output of a git command in this repository."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def previous_release() -> str | None:
    """The tag of the newest release other than this version, None if there is none."""
    tags = git("tag", "--list", "v*", "--sort=-version:refname").decode().split()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    return next((tag for tag in tags if tag != f"v{version[1]}"), None)


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


@pytest.mark.needs("git", "tar")
def test_the_previous_release_runs_on_this_schema(tmp_path):
    """Its own contract tests pass on this schema, unless a revision since then declares otherwise.

    Without a second release in the changelog there is no previous one, and no tag is needed.
    """
    tag = previous_release()
    if tag is None:
        changelog = (ROOT / "CHANGELOG.md").read_text()
        assert len(re.findall(r"^## \[\d", changelog, re.MULTILINE)) <= 1, (
            "the tags of the previous releases are missing: run git fetch --tags"
        )
        return
    archive = git("archive", "--format=tar", tag)
    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=archive, check=True)
    known = {path.name.partition("_")[0] for path in (tmp_path / "migrations" / "versions").glob("*.py")}
    since = [revision for revision in REVISIONS if revision not in known]

    done = run_contract(tmp_path, schema=ROOT)

    declared = all(script(revision).module.runs_beside_previous_release for revision in since)
    assert declared == (done.returncode == 0), done.stdout


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
