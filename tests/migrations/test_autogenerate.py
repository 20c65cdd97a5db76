"""`alembic revision` writes revisions that can be committed as they are."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from migrations.revision_ids import next_id
from tests.copies import add_environment, add_type_cache
from tests.migrations.alembic import HEAD, alembic, fetch, succeed
from tests.migrations.lint import Linter, complaints
from tests.migrations.schema import dump
from tests.paths import ROOT

DOCUMENT = "docs/operations/migrations.md"

MODEL = '''"""The tables of this test."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Numeric, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class TestsOwnShelfRow(Base):
    __tablename__ = "test_shelves"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text, index=True)


class TestsOwnBookRow(Base):
    __tablename__ = "test_books"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    title: Mapped[str | None] = mapped_column(Text)
'''
"""A model of the first release."""

CHANGED = {
    "title: Mapped[str | None]": "title: Mapped[str]",
    '"test_books"\n': """"test_books"
    __table_args__ = (UniqueConstraint("code"), Index("ix_test_books_lower_title", text("lower(title)")))
""",
    "class TestsOwnBookRow": """class TestsOwnAuthorRow(Base):
    __tablename__ = "test_authors"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("test_shelves.id"), index=True)


class TestsOwnBookRow""",
}
"""Texts of the model, and those of the next release in their place."""

NEW_COLUMNS = """    code: Mapped[str | None] = mapped_column(String(20))
    copies: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    weight: Mapped[int] = mapped_column(Numeric(10, 3))
    token: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())
    bought_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("test_shelves.id"))
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the project in which the models can be changed."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, folder / name)  # with the bytecode: each command would compile it again
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    add_environment(folder)
    return folder


def write_model(project: Path, text: str) -> None:
    """Make this the module of the tests' own tables."""
    (project / "app/models/tables_of_a_test.py").write_text(text)
    package = project / "app/models/__init__.py"
    line = "from app.models.tables_of_a_test import TestsOwnBookRow as TestsOwnBookRow\n"
    package.write_text(package.read_text().replace(line, "") + line)


def versions(project: Path) -> dict[str, str]:
    """The texts of the revisions that are not the project's, by their ids, in their order."""
    known = {path.name for path in (ROOT / "migrations/versions").glob("*.py")}
    new = [path for path in sorted((project / "migrations/versions").glob("*.py")) if path.name not in known]
    return {re.findall(r'^revision = "(\w+)"', text := path.read_text(), re.MULTILINE)[0]: text for path in new}


def documented(message: str) -> list[str]:
    """The command of the document, with another message."""
    commands = re.findall(r"^\$ alembic (revision --autogenerate .*)$", (ROOT / DOCUMENT).read_text(), re.MULTILINE)
    assert 1 == len(commands)
    return [*commands[0].split()[:2], "--message", message]


def autogenerate(url: str, project: Path, message: str) -> dict[str, str]:
    """The new revisions that the document's command writes, after they were applied."""
    before = set(versions(project))
    succeed(url, *documented(message), folder=project)
    new = {revision: text for revision, text in versions(project).items() if revision not in before}
    succeed(url, "upgrade", "head", folder=project)
    return new


def complaints_of(project: Path, revisions: list[str]) -> list[str]:
    """What the linter says of these revisions."""
    linter, found = Linter(), []
    for revision in revisions:
        before = f"{revision[:-4]}{int(revision[-4:]) - 1:04}"
        sql = succeed(None, "upgrade", f"{before}:{revision}", "--sql", folder=project).stdout
        found += complaints(linter.findings(sql), {})
    return found


def check(project: Path) -> None:
    """Run the linters and the type checker on the new revisions."""
    add_type_cache(project)
    files = list((project / "migrations/versions").glob("*.py"))
    for command in (["ruff", "format", "--check"], ["ruff", "check"], ["mypy"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, *files],
            cwd=project, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stdout + done.stderr


def test_a_change_of_the_models_becomes_revisions_in_safe_steps(empty_database_url, project):
    """The files run, break no rule, are formatted, have the next ids, and can be downgraded."""
    url = empty_database_url
    succeed(url, "upgrade", "head", folder=project)
    write_model(project, MODEL)
    first = autogenerate(url, project, "add books and shelves.")
    without = dump(url)
    text = MODEL
    for old, new in CHANGED.items():
        assert old in text
        text = text.replace(old, new)
    write_model(project, text + NEW_COLUMNS)

    second = autogenerate(url, project, "change the books")

    ids = [*first, *second]
    assert ids == [numbered(HEAD, place + 1) for place in range(len(ids))]
    check(project)
    assert [] == complaints_of(project, ids)
    texts = "\n".join(second.values())
    assert '"""Change the books: change test_books.' in texts
    assert (
        'create_index_concurrently("ix_test_books_lower_title", "test_books", [sa.literal_column("lower(title)")])'
        in texts
    )
    assert "postgresql_not_valid=True" in texts
    assert "# The column weight is new. It may be null" in texts
    assert ("YES", "NO") == nullable(url, "weight") + nullable(url, "title")
    migrated = dump(url)
    succeed(url, "downgrade", list(first)[-1], folder=project)
    assert without == dump(url)
    succeed(url, "upgrade", "head", folder=project)
    assert migrated == dump(url)

    third = autogenerate(url, project, "the new columns are filled")
    assert ("NO", "NO") == nullable(url, "weight") + nullable(url, "token")
    assert [] == complaints_of(project, [*ids, *third])
    assert "No new upgrade operations detected." in succeed(url, "check", folder=project).stdout


def nullable(url: str, column: str) -> tuple[str]:
    """Whether a column of the books may be null."""
    query = "SELECT is_nullable FROM information_schema.columns WHERE table_name = 'test_books' AND column_name = $1"
    return fetch(url, query, column)[0]


def numbered(revision: str, steps: int) -> str:
    """The id so many steps after a revision."""
    for _ in range(steps):
        revision = next_id(revision)
    return revision


def test_a_removal_needs_a_reason(empty_database_url, project):
    """What removes or rewrites something is in a revision that the linter refuses until a person gives the reason."""
    url = empty_database_url
    succeed(url, "upgrade", "head", folder=project)
    old = MODEL.replace("Text, index=True", 'Text, ForeignKey("test_books.id"), index=True').replace(
        "Text", "BigInteger"
    )
    write_model(project, old)
    first = autogenerate(url, project, "add books")
    without = dump(url)
    new = old.replace("    title: Mapped[str | None] = mapped_column(BigInteger)\n", "")
    new = new.replace(
        'name: Mapped[str] = mapped_column(BigInteger, ForeignKey("test_books.id"), index=True)',
        "name: Mapped[str | None] = mapped_column(Numeric(9, 2))",
    )
    write_model(project, new)

    second = autogenerate(url, project, "remove things")

    found = [text.partition(":")[0] for text in complaints_of(project, [*first, *second])]
    assert ["ban-drop-column", "ban-drop-constraint", "ban-drop-not-null", "rewrite"] == sorted(found)
    texts = " ".join("".join(second.values()).replace("#", "").split())
    assert all(f"the rule {rule}, with the reason" in texts for rule in found)
    assert 'drop_index_concurrently("ix_test_shelves_name", "test_shelves")' in texts
    check(project)
    succeed(url, "downgrade", list(first)[-1], folder=project)
    assert without == dump(url)


def test_a_revision_without_autogenerate_needs_no_database(revisions_copy):
    """It has the next id, and its message becomes a sentence."""
    succeed(None, "revision", "--message", 'say "hello".', folder=revisions_copy)

    [(revision, text)] = versions(revisions_copy).items()
    assert numbered(HEAD, 1) == revision
    assert text.startswith('"""Say \'hello\'.\n')
    assert "import" not in text


def test_a_merge_needs_no_database(revisions_copy):
    """`alembic merge` writes a revision of two heads."""
    for head, revision in ((HEAD, "9998"), (HEAD, "9999")):
        arguments = ("--rev-id", revision, "--splice", "--head", head, "--message", "paint")
        succeed(None, "revision", *arguments, folder=revisions_copy)

    succeed(None, "merge", "--rev-id", "10000", "--message", "merge", "heads", folder=revisions_copy)

    assert "10000 (head)" in succeed(None, "heads", folder=revisions_copy).stdout


def test_an_id_that_does_not_end_with_a_number_has_no_next_one(revisions_copy):
    """One sentence says how to give the new revision an id."""
    succeed(None, "revision", "--rev-id", "final", "--message", "paint", folder=revisions_copy)

    done = alembic(None, "revision", "--message", "paint", folder=revisions_copy)

    assert 1 == done.returncode
    assert "The id of the newest revision, final, does not end with a number: give the new one" in done.stderr
    assert 1 == len(done.stderr.splitlines())
