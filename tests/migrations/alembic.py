"""Runs `alembic` as an operator does, on the project's revisions or on a copy with extra revisions."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg

from app.health.schema_state import VERSION_TABLE as VERSION_TABLE
from app.health.schema_state import Revisions
from tests.paths import ROOT

HEAD = Revisions().head or ""
"""The newest revision."""

_REVISION = """
from alembic import op
from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "{revision}"
down_revision = "{down_revision}"
runs_beside_previous_release = True


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
"""


def start(url: str | None, *arguments: str, folder: Path = ROOT, **settings: Any) -> subprocess.Popen[str]:
    """Start a command. Keyword arguments are settings, by their names in lower case.

    It sees neither the `.env` of the checkout nor the database of a `make run` there: both are a developer's.
    """
    assert url or "--sql" in arguments or folder != ROOT, "Name a URL, or the folder of a copy of the project."
    environment = {
        name: os.environ[name] for name in os.environ if name in ("PATH", "HOME") or name.startswith("COVERAGE_")
    }
    environment |= {"LOG_FORMAT": "json", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"DATABASE_URL": url} if url else {}
    environment |= {name.upper(): str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "--config", folder / "alembic.ini", *arguments],
        cwd=folder / "migrations", env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Wait until the process ends. Kill it after so many seconds."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"alembic did not finish within {seconds} s: {err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def alembic(url: str | None, *arguments: str, folder: Path = ROOT, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for it."""
    return finish(start(url, *arguments, folder=folder, **settings))


def succeed(url: str | None, *arguments: str, folder: Path = ROOT, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and assert that it succeeds."""
    done = alembic(url, *arguments, folder=folder, **settings)
    assert 0 == done.returncode, done.stderr
    return done


def events(stderr: str) -> list[dict[str, Any]]:
    """The log lines of a command, which are JSON objects."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def event_names(stderr: str) -> list[str]:
    """The events of a command's log lines."""
    return [event["event"] for event in events(stderr)]


def copy_project(folder: Path) -> Path:
    """Copy the project to a folder, where revisions can be added to it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=ignored)
    shutil.copy(ROOT / "alembic.ini", folder)
    (folder / "app").symlink_to(ROOT / "app")
    return folder


def add_revision(folder: Path, revision: str, *, revises: str, upgrade: str, downgrade: str = "pass") -> None:
    """Add a revision whose functions run these lines of Python."""
    text = _REVISION.format(
        revision=revision,
        down_revision=revises,
        upgrade=upgrade.replace("\n", "\n    "),
        downgrade=downgrade.replace("\n", "\n    "),
    )
    (folder / "migrations" / "versions" / f"{revision}_added_by_a_test.py").write_text(text)


def fetch(url: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""

    async def connect_and_fetch() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    return asyncio.run(connect_and_fetch())
