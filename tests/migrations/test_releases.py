"""One release's code beside another one's schema."""

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

CONTRACT = ("routers/test_item.py", "routers/test_idempotency.py", "http/test_pagination.py", "http/test_etags.py")
"""The tests of what clients rely on, in tests/."""

EXPANSION = """op.execute("ALTER TABLE items ADD COLUMN colour text, ADD COLUMN stock int DEFAULT 0 NOT NULL")
op.execute("ALTER TABLE items ADD CONSTRAINT ck_items_stock_range CHECK (stock >= 0) NOT VALID")
op.execute("CREATE TABLE colours (name text CONSTRAINT pk_colours PRIMARY KEY)")"""
"""What a next release may add while this one still runs."""

CONTRACTION = 'op.execute("ALTER TABLE items DROP COLUMN description")'
"""What it may not."""


def contract(code: Path, *, schema: Path) -> subprocess.CompletedProcess[str]:
    """Run the contract's tests of one release against the schema of another one."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *(f"tests/{name}" for name in CONTRACT)],
        cwd=code, env=kept | {"SCHEMA_OF": str(schema)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def git(*arguments: str) -> bytes:
    """What git says of this project."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def release_before() -> str | None:
    """The tag of the newest release that is not the version at hand, None before the second one."""
    tags = git("tag", "--list", "v*", "--sort=-version:refname").decode().split()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    return next((tag for tag in tags if tag != f"v{version[1]}"), None)


def test_this_release_runs_on_the_next_schema(tmp_path):
    """The whole contract holds on a schema that the next release has expanded.

    That is how a release is updated: the database first, while this code serves.
    """
    next_release = copy_project(tmp_path)
    add_revision(next_release, "9999", revises=HEAD, upgrade=EXPANSION)

    done = contract(ROOT, schema=next_release)

    assert 0 == done.returncode, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 100


def test_a_schema_that_takes_something_away_is_noticed(tmp_path):
    """The test above fails for a revision that the code at hand cannot run beside."""
    next_release = copy_project(tmp_path)
    add_revision(next_release, "9999", revises=HEAD, upgrade=CONTRACTION)

    done = contract(ROOT, schema=next_release)

    assert 1 == done.returncode, done.stdout


def test_the_release_before_runs_on_this_schema(tmp_path):
    """Its own contract tests pass on the schema at hand, unless a revision since then declares otherwise.

    Before the second release there is none before; then this is only about the tags being read.
    """
    tag = release_before()
    if tag is None:
        changelog = (ROOT / "CHANGELOG.md").read_text()
        assert len(re.findall(r"^## \[\d", changelog, re.MULTILINE)) <= 1, "the tags of earlier releases are missing"
        return
    archive = git("archive", "--format=tar", tag)
    subprocess.run(["tar", "--extract", "--directory", tmp_path], input=archive, check=True)
    known = {path.name.partition("_")[0] for path in (tmp_path / "migrations" / "versions").glob("*.py")}
    since = [revision for revision in REVISIONS if revision not in known]

    done = contract(tmp_path, schema=ROOT)

    declared = all(script(revision).module.runs_beside_previous_release for revision in since)
    assert declared == (done.returncode == 0), done.stdout


@pytest.mark.parametrize("revision", ["base", *REVISIONS[:-1]])
async def test_this_release_on_an_older_schema_is_not_ready(empty_database_url, revision):
    """It waits for its schema: alive, not ready, and whatever is asked gets its answer or a 503, never a 500."""
    succeed(empty_database_url, "upgrade", REVISIONS[0])
    succeed(empty_database_url, "downgrade" if revision == "base" else "upgrade", revision)
    app = create_app(Settings.load(database_url=empty_database_url, rate_limit_enabled=False, _env_file=None))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client,
    ):
        ready = await client.get("/health/ready")
        asked = [
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
    assert 200 == asked[0].status_code
    assert {answer.status_code for answer in asked[1:]} <= {200, 201, 204, 503}
    unserved = [answer.json()["code"] for answer in asked if answer.status_code == 503]
    assert set(unserved) <= {"schema_outdated"}
    if revision == "base":
        assert len(asked) - 1 == len(unserved)
